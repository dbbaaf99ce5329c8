"""Many worlds in a row: `python -m potluck_netsim.sweep --seeds 1000`, or `make sim SEEDS=1000`.

Each seed is tried in each scenario, small enough that a world takes a second or two. A broken promise is shrunk and
printed with the command that replays it; the sweep goes on, and ends with 1.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

import click

from potluck_netsim.catalogue import SCENARIOS
from potluck_netsim.scenarios import Options
from potluck_netsim.shrink import Shrinker, replay
from potluck_netsim.world import PromiseBroken

# Nodes and minutes of each scenario when many are run: about a second of one core.
SMALL: dict[str, tuple[int, float]] = {
    "lab": (10, 2.0),
    "workday": (6, 480.0),
    "volunteers": (20, 240.0),
    "flash": (6, 0.5),
    "parted": (8, 3.0),
    "strangers": (8, 1.5),
    "exodus": (8, 3.0),
    "upgrade": (8, 3.0),
    "image": (7, 3.0),
    "members": (8, 3.0),
    "hostile": (10, 0.5),
    "war": (8, 0.7),
}
# Seeds that were drawn anew come from here, so that they can be written down.
FRESH_MAX = 1 << 31


@dataclass(frozen=True)
class Outcome:
    """`story` is "" where all promises were kept."""

    scenario: str
    seed: int
    story: str
    spent_s: float


def one(scenario: str, seed: int) -> Outcome:
    """Run one world; look for the shortest replay if it breaks a promise."""
    kind, (nodes, minutes), began = SCENARIOS[scenario], SMALL[scenario], time.monotonic()
    options = Options(seed, nodes, minutes, kind.faults_of(seed))
    story = ""
    try:
        kind(options, None).run()
    except PromiseBroken as broken:
        shrinker = Shrinker(kind, options, broken)
        story = f"{shrinker.shrink()}\n\nReplay: {replay(scenario, shrinker.options)}"
    return Outcome(scenario, seed, story, time.monotonic() - began)


def sweep(seeds: list[int], names: list[str], workers: int) -> Iterator[Outcome]:
    """In the order in which they end."""
    with ProcessPoolExecutor(workers) as pool:
        tasks = [pool.submit(one, name, seed) for seed in seeds for name in names]
        for task in as_completed(tasks):
            yield task.result()


def fresh(count: int) -> list[int]:
    """Seeds that nobody tried."""
    return [random.SystemRandom().randrange(FRESH_MAX) for _ in range(count)]


@click.command()
@click.option("--seeds", type=click.IntRange(min=1), default=20, show_default=True, help="How many.")
@click.option("--first", type=int, help="Seeds from here on; else drawn anew, and printed.")
@click.option("--scenario", "names", multiple=True, type=click.Choice(sorted(SMALL)), help="Only these.")
@click.option("--workers", type=click.IntRange(min=1), default=os.cpu_count() or 1, help="Processes.")
def main(seeds: int, first: int | None, names: tuple[str, ...], workers: int) -> None:
    """Try many seeds in each scenario; ends with 1 when one broke a promise."""
    tried = fresh(seeds) if first is None else list(range(first, first + seeds))
    click.echo(f"seeds {tried[0]} … {tried[-1]}" if first is not None else f"seeds {' '.join(map(str, tried))}")
    broken = worlds = 0
    for outcome in sweep(tried, list(names) or sorted(SMALL), workers):
        worlds += 1
        if outcome.story:
            broken += 1
            click.echo(f"\n{outcome.scenario} --seed {outcome.seed}\n{outcome.story}\n")
    click.echo(f"{worlds} worlds, {broken} with a broken promise")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
