"""What a node asks of a peer, and what it answers, before anything is built."""

import pytest

from potluck.errors import ImageBuildError
from potluck.wire import build as messages
from potluck.wire import control
from potluck.wire.offer import Offer
from potluck_images.definition import ImageDefinition
from potluck_node.build_peers import BuildPeers
from potluck_node.clock import SystemClock


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
