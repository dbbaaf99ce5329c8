"""A row of figures over time as a line of small bars. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from potluck.wire.history import UNKNOWN, Span

BARS = "▁▂▃▄▅▆▇█"
# Nothing was seen then, as against something that did nothing.
NOTHING = " "


def sparks(values: Sequence[int | None], most: int) -> str:
    """One character for each value; None is a gap, `most` is as high as there is."""
    return "".join(NOTHING if value is None else _spark(value, most) for value in values)


def _spark(value: int, most: int) -> str:
    return BARS[max(0, min(len(BARS) - 1, value * len(BARS) // max(1, most)))]


def over_time(
    spans: Sequence[Span], uuid: str, figure: str, since_us: int, until_us: int, width: int
) -> list[int | None]:
    """A figure of one GPU in `width` columns of equal time: the mean of the spans that begin in each; None where
    nothing is known."""
    columns: list[list[int]] = [[] for _ in range(width)]
    step_us = max(1, (until_us - since_us) // max(1, width))
    for span in spans:
        if span.at_us + span.step_s * 1_000_000 <= since_us:
            continue
        first = (span.at_us - since_us) // step_us
        last = (span.at_us + span.step_s * 1_000_000 - 1 - since_us) // step_us
        values = [getattr(gpu, figure) for gpu in span.gpus if gpu.uuid == uuid]
        for column in range(max(0, first), min(width - 1, last) + 1):
            columns[column] += [value for value in values if value != UNKNOWN]
    return [round(sum(each) / len(each)) if each else None for each in columns]
