"""Builds that are ended for the owner, in the tasks in which they run."""

import pytest
import trio

from potluck.errors import ImageBuildError, InvalidError
from potluck.wire.offer import HELD
from potluck_node.builds import Builds, GaveWayError
from potluck_node.core import provider_events as ev

RETURNED = ev.Paused("the owner returned", now=True, own=False)


async def test_a_build_for_a_peer_is_told_and_ended_and_may_be_tried_again():
    builds, said = Builds(), []
    with pytest.raises(GaveWayError, match="the owner returned"), builds.running("bob", said.append):
        for _ in range(2):
            builds.heed(ev.GraceBegan("the owner returned", 30_000_000, own=False))
        builds.heed(RETURNED)
        builds.heed(ev.Paused("panic", now=True))
        await trio.sleep_forever()
    assert said == ["the owner returned: it ends in 30 s"]
    builds.heed(RETURNED)


async def test_what_is_built_for_this_node_ends_only_when_its_owner_stops_all():
    builds = Builds()
    with builds.running("", print):
        builds.heed(RETURNED)
        await trio.lowlevel.checkpoint()
    with pytest.raises(ImageBuildError, match="was ended") as caught, builds.running("", print):
        builds.heed(ev.Paused("panic", now=True))
        await trio.sleep_forever()
    assert caught.value.why == "panic"


async def test_a_build_gives_way_only_for_a_gpu_that_its_step_holds():
    builds, ends = Builds(), ev.GpusBlocked((("GPU-1", HELD),), frozenset({"GPU-1"}))
    with pytest.raises(GaveWayError, match="held back"), builds.running("bob", print):
        builds.heed(ends)
        builds.holds(True, frozenset({"GPU-1"}))
        builds.holds(False, frozenset())
        await trio.lowlevel.checkpoint()
        builds.heed(ends)
        await trio.sleep_forever()


async def test_a_step_that_cannot_have_what_the_owner_holds_back_is_for_another_time():
    builds = Builds()
    with pytest.raises(GaveWayError, match="held back"), builds.running("bob", print):
        builds.held_back("a GPU is held back by the owner")
        raise ImageBuildError("no GPU")
    with pytest.raises(InvalidError), builds.running("bob", print):
        raise InvalidError("another trouble")
    await trio.lowlevel.checkpoint()
