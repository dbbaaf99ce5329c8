"""Looks become minutes, minutes longer spans; nothing that was given gets lost on the way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potluck.wire.history import UNKNOWN, GpuSpan, Span
from potluck_node.core.history import KEPT_S, Minutes, decoded, encoded, merged, stepped, thinned

SECOND = 1_000_000
MINUTE = 60 * SECOND
figures = st.integers(UNKNOWN, 1000)
gpus = st.builds(GpuSpan, st.sampled_from(["GPU-a", "GPU-b"]), figures, figures, figures, figures, st.integers(0, 1000))
spans = st.lists(
    st.builds(
        Span,
        st.integers(0, 20_000).map(lambda minute: minute * MINUTE),
        st.sampled_from([60, 300, 900]),
        st.lists(gpus, max_size=2, unique_by=lambda gpu: gpu.uuid).map(tuple),
        st.integers(0, 9),
        st.integers(0, 10**9),
        st.integers(0, 10**9),
    ),
    max_size=40,
)


def sums(some):
    return tuple(sum(getattr(span, name) for span in some) for name in ("inputs", "given_us", "gpu_us"))


def size(span):
    return len(encoded(span))


@given(spans, st.sampled_from([60, 300, 3600]))
def test_merging_keeps_what_was_given_and_stays_within_what_was_seen(some, step_s):
    found = merged(some, step_s)
    assert sums(found) == sums(some)
    assert [span.at_us for span in found] == sorted({span.at_us for span in found})
    assert all(span.step_s >= step_s and span.at_us % (step_s * SECOND) == 0 for span in found)
    for uuid in ("GPU-a", "GPU-b"):
        seen = [gpu.load_milli for span in some for gpu in span.gpus if gpu.uuid == uuid and gpu.load_milli != UNKNOWN]
        shown = [gpu.load_milli for span in found for gpu in span.gpus if gpu.uuid == uuid]
        assert all(value == UNKNOWN or min(seen) <= value <= max(seen) for value in shown)


@given(spans, st.integers(0, 4000), st.integers(0, 21_000))
def test_thinning_keeps_within_its_bound_and_drops_only_the_old(some, most, now):
    now_us = now * MINUTE
    young = [span for span in some if span.at_us > now_us - KEPT_S * SECOND]
    found = thinned(some, now_us, most, size)
    assert sum(map(size, found)) <= most
    assert [span.at_us for span in found] == sorted(span.at_us for span in found)
    if sum(map(size, young)) <= most:
        assert sorted(found, key=repr) == sorted(young, key=repr)
    if found:
        assert max(span.at_us + span.step_s * SECOND for span in found) >= max(span.at_us for span in young)


@given(spans, st.integers(3, 50))
def test_an_answer_is_as_small_as_it_must_be(some, cells):
    found = stepped(some, 60, cells)
    assert sum(1 + len(span.gpus) for span in found) <= cells
    assert sums(found) == sums(some)


@given(spans, st.integers(0, 2000), st.binary(max_size=20))
def test_a_torn_end_costs_one_line(some, cut, noise):
    whole = b"".join(map(encoded, some))
    torn = whole[: len(whole) - min(cut, len(whole))]
    lines = torn.count(b"\n")
    assert decoded(torn)[:lines] == some[:lines]
    assert decoded(torn + b"\n" + noise.replace(b"[", b"") + b"\n" + encoded(Span(1, 60)))[-1] == Span(1, 60)


def test_a_minute_is_the_mean_of_its_looks_and_is_over_with_the_first_look_after_it():
    minutes = Minutes()
    assert minutes.look([GpuSpan("GPU-a", 100, 10, UNKNOWN, 5000, 1000)], 10 * MINUTE) is None
    minutes.gave(2, 3 * SECOND, SECOND)
    assert minutes.look([GpuSpan("GPU-a", 300, 20, 50, UNKNOWN, 0)], 10 * MINUTE + 5 * SECOND) is None
    done = minutes.look([], 11 * MINUTE)
    assert done == Span(10 * MINUTE, 60, (GpuSpan("GPU-a", 200, 15, 50, 5000, 500),), 2, 3 * SECOND, SECOND)
    assert minutes.now() is None
    assert minutes.look([], 12 * MINUTE) is None


@pytest.mark.parametrize("line", [b"[1]", b"{}", b"[0,0,[],0,0,0]", b"\xff\xfe", b"null"])
def test_what_is_no_span_is_passed_over(line):
    assert decoded(line + b"\n") == []
