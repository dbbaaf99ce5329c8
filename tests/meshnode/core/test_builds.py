"""Which builds of images give way to the owner."""

import pytest

from potluck.wire.offer import HELD
from potluck_node.core import provider_events as ev
from potluck_node.core.builds import Ended, Warned, heed

BLOCKED = (("GPU-1", HELD),)


@pytest.mark.parametrize(
    ("event", "theirs", "ours"),
    [
        (ev.Paused("the owner returned", own=False), None, None),
        (ev.GraceBegan("the owner returned", 30, own=False), Warned("the owner returned", 30), None),
        (ev.Paused("the owner returned", now=True, own=False), Ended("the owner returned"), None),
        (ev.Paused("panic", now=True), Ended("panic"), Ended("panic")),
        (ev.Paused("draining"), None, None),
        (ev.Resumed(), None, None),
        (ev.GpusBlocked(BLOCKED, grace_us=7), Warned("its GPU is held back by the owner", 7), None),
        (ev.GpusBlocked(BLOCKED, frozenset({"GPU-1"}), 7), Ended("its GPU is held back by the owner"), None),
        (ev.GpusBlocked((("GPU-2", HELD),), frozenset({"GPU-2"})), None, None),
    ],
)
def test_peers_give_way_and_what_is_ours_only_when_all_stops(event, theirs, ours):
    assert heed(event, False, {"GPU-1"}) == theirs
    assert heed(event, True, {"GPU-1"}) == ours


def test_of_two_gpus_the_one_that_is_over_counts():
    event = ev.GpusBlocked((("GPU-1", HELD), ("GPU-2", HELD)), frozenset({"GPU-2"}), 7)
    assert isinstance(heed(event, False, {"GPU-1", "GPU-2"}), Ended)
    assert heed(event, False, ()) is None
