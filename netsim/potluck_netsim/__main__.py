"""`python -m potluck_netsim lab --seed 7`: run a scenario, print its report or the broken promise."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from potluck_netsim.catalogue import SCENARIOS
from potluck_netsim.faults import Faults, none
from potluck_netsim.picture import draw
from potluck_netsim.scenarios import Options
from potluck_netsim.shrink import Shrinker, replay
from potluck_netsim.world import PromiseBroken


def _fault_options(command: Callable[..., None]) -> Callable[..., None]:
    """An option for each fault; without it, the seed decides."""
    for field in dataclasses.fields(Faults):
        command = click.option("--" + field.name.replace("_", "-"), type=click.IntRange(min=0))(command)
    return command


@click.command()
@click.argument("scenario", type=click.Choice(sorted(SCENARIOS)))
@click.option("--seed", type=int, required=True, help="The same seed and options give the same history.")
@click.option("--nodes", type=click.IntRange(min=1), help="As many as the scenario usually has, if not said.")
@click.option("--minutes", type=click.FloatRange(min=0), help="Before faults cease; else as usual.")
@click.option("--trace", type=click.Path(path_type=Path), help="Write every line of the history to this file.")
@click.option("--png", type=click.Path(path_type=Path), help="Draw the report into this file.")
@click.option("--calm", is_flag=True, help="No fault but those that are given.")
@click.option("--shrink/--no-shrink", default=True, help="Look for a shorter replay of a broken promise.")
@_fault_options
def main(
    scenario: str,
    seed: int,
    nodes: int | None,
    minutes: float | None,
    trace: Path | None,
    png: Path | None,
    calm: bool,
    shrink: bool,
    **faults: Any,
) -> None:
    """Run SCENARIO; ends with 1 when a promise to users was broken."""
    kind = SCENARIOS[scenario]
    given = {name: value for name, value in faults.items() if value is not None}
    base = none() if calm else kind.faults_of(seed)
    if minutes is None:
        minutes = kind.usual_minutes
    options = Options(seed, nodes or kind.usual_nodes, minutes, dataclasses.replace(base, **given))
    with _writer(trace) as write:
        started = time.monotonic()
        try:
            report = kind(options, write).run()
        except PromiseBroken as broken:
            click.echo(broken)
            if shrink:
                _shrink(scenario, options, broken)
            sys.exit(1)
    spent_s = time.monotonic() - started
    click.echo(report)
    if png:
        draw(scenario, report, png)
    click.echo(f"speed     {report.events / spent_s:.0f} events a second, {spent_s:.1f} s")


def _shrink(scenario: str, options: Options, broken: PromiseBroken) -> None:
    click.echo("Looking for a shorter replay…", err=True)
    shrinker = Shrinker(SCENARIOS[scenario], options, broken)
    shortest = shrinker.shrink()
    if shrinker.options != options:
        click.echo(f"\nThe shortest of {shrinker.worlds} worlds:\n{shortest}")
    click.echo(f"\nReplay: {replay(scenario, shrinker.options)}")


@contextmanager
def _writer(path: Path | None) -> Iterator[Callable[[str], None] | None]:
    if path is None:
        yield None
        return
    with path.open("w", encoding="utf-8", newline="\n") as file:
        yield lambda line: print(line, file=file)


if __name__ == "__main__":
    main()
