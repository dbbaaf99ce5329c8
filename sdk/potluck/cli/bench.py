"""`potluck bench`: how fast this machine is."""

from __future__ import annotations

from collections.abc import Sequence

import click

from potluck.cli.connect import client
from potluck.cli.show import as_json, named, print_json, print_table
from potluck.wire.bench import BenchDone, RunBench
from potluck.wire.offer import Score


@click.command()
@as_json
def bench(as_json: bool) -> None:
    """Measure this machine, a second or two for each device; the node offers what was found."""
    connection = client()
    try:
        done = connection.ask(RunBench, BenchDone)
    finally:
        connection.close()
    if as_json:
        print_json({"scores": [named(each) for each in done.scores], "left_out": done.left_out})
        return
    print_table(
        ("", "speed"), [(each.gpu_model or "CPU", speed(each)) for each in done.scores], "Nothing was measured."
    )
    for text in done.left_out:
        click.echo(text, err=True)


def speed(score: Score) -> str:
    """With its unit: of the processor one core's, of a GPU arithmetic in halves and its memory's."""
    text = compute(bool(score.gpu_model), score.compute)
    return f"{text}, {score.memory / 1024:.0f} GiB/s" if score.gpu_model else text


def compute(is_gpu: bool, figure: int) -> str:
    """Of a GPU its arithmetic, of a processor one core's."""
    return f"{figure / 1000:.1f} TFLOP/s" if is_gpu else f"{figure / 1024:.1f} MiB/s a core"


def claims(scores: Sequence[Score]) -> str:
    """What a peer says of itself, in one cell."""
    return "; ".join(f"{each.gpu_model or 'CPU'} {speed(each)}" for each in scores)
