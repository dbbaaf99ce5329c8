"""What a node asks of a peer, and what it answers, before anything is built."""

import pytest
import trio

from potluck.errors import ImageBuildError
from potluck.wire import build as messages
from potluck.wire import control
from potluck.wire.offer import Offer
from potluck_images.definition import ImageDefinition
from potluck_node.build_peers import AGAIN_S, PATIENCE_S, BuildPeers
from potluck_node.builds import GaveWayError
from potluck_node.clock import SystemClock
from potluck_node.machine import machine


@pytest.fixture
def peers(tmp_path):
    return BuildPeers(None, None, SystemClock(), tmp_path, "ann", allowed=True)


async def test_a_peer_with_another_processor_is_not_asked(peers):
    offer = Offer("p", "bob", "local", 0, 0, 0, machine="riscv64")
    with pytest.raises(ImageBuildError, match="its processor is riscv64"):
        await peers.ask(control.BuildImage(1, ImageDefinition()), offer, print)


async def test_a_caller_with_another_processor_is_refused(peers):
    answer = await peers._answer(messages.Build(ImageDefinition(), "riscv64"), "p", print)
    assert answer.failure.kind == "image-build"
    assert "the caller's riscv64" in answer.failure.what


def test_a_request_in_a_log_shows_no_secret():
    secrets = {0: {"TOKEN": "hunter2"}}
    assert "hunter2" not in repr(messages.Build(ImageDefinition(), "x86_64", "", secrets))
    assert "hunter2" not in repr(control.BuildImage(1, ImageDefinition(), secrets))


async def test_a_peer_that_gives_way_is_asked_again_for_a_while(peers, monkeypatch, autojump_clock):
    said, asked = [], []

    async def converse(builder, request, say):
        asked.append(trio.current_time())
        if len(asked) == 3:
            return "id", "3.11"
        raise GaveWayError("the owner returned")

    monkeypatch.setattr(peers, "_converse", converse)
    offer = Offer("p", "bob", "local", 0, 0, 0, machine=machine())
    assert await peers._patiently(offer, None, said.append) == ("id", "3.11")
    assert [round(each - asked[0]) for each in asked] == [0, AGAIN_S, 3 * AGAIN_S]
    assert said[0] == "bob gave way to its owner (the owner returned); it is asked again in 2 s"
    asked[:] = range(3)
    with pytest.raises(ImageBuildError, match="bob gave way") as caught:
        await peers._patiently(offer, None, said.append)
    assert caught.value.why == "the owner returned"
    assert PATIENCE_S - 60 < trio.current_time() - asked[3] < PATIENCE_S


async def test_a_node_whose_owner_is_there_says_so(peers):
    peers.stopped = lambda: "the owner returned"
    answer = await peers._answer(messages.Build(ImageDefinition(), machine()), "p", print)
    assert answer.yielded
    assert answer.failure.why == "the owner returned"
