"""Figures over time as a line of bars."""

import pytest

from potluck.sparks import over_time, sparks
from potluck.wire.history import UNKNOWN, GpuSpan, Span

MINUTE = 60_000_000


def test_bars_reach_from_nothing_to_all_and_gaps_stay_empty():
    assert sparks([0, 500, 999, 1000, None, 5000, -3], 1000) == "▁▅██ █▁"
    assert sparks([0, 3], 0) == "▁█"


@pytest.mark.parametrize(
    ("width", "expected"),
    [(4, [100, 300, None, None]), (2, [200, None]), (1, [200]), (8, [100, 100, 300, 300, None, None, None, None])],
)
def test_columns_are_means_of_what_was_then(width, expected):
    spans = [
        Span(0, 60, (GpuSpan("a", 100), GpuSpan("b", 900))),
        Span(MINUTE, 60, (GpuSpan("a", 300),)),
        Span(2 * MINUTE, 60, (GpuSpan("a", UNKNOWN),)),
        Span(3 * MINUTE, 60),
    ]
    assert over_time(spans, "a", "load_milli", 0, 4 * MINUTE, width) == expected


def test_what_is_before_or_after_is_left_out():
    spans = [Span(at * MINUTE, 60, (GpuSpan("a", at),)) for at in range(10)]
    assert over_time(spans, "a", "load_milli", 4 * MINUTE, 6 * MINUTE, 2) == [4, 5]
