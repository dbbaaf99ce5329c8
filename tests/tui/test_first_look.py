"""What somebody who never read the docs finds on the first screen: pause, the policy, and who uses the GPU."""

import asyncio

import pytest
from tests.tui.pictures import MOMENT_US
from tests.tui.screen import running, screen_lines, until_shown

from potluck.wire.control import AskStatus
from potluck_tui.demo import Demo, load
from potluck_tui.first import frame


@pytest.fixture(scope="module")
def screen():
    async def scene():
        async with running(None, (80, 24), Demo(load(), MOMENT_US)) as (_app, pilot):
            await until_shown(pilot, "devices", ": train")
            return screen_lines(pilot.app)

    return asyncio.run(scene())


def found(lines, *words):
    """The one line that has all of these."""
    (line,) = [line for line in lines if all(word in line for word in words)]
    return line


def test_pausing_is_named_with_its_key(screen):
    last = screen[-1]
    for key in ("p Pause", "r Resume", "n Pause now", "? Help", "q Quit"):
        assert f" {key} " in last


def test_the_policy_is_named_with_its_key(screen):
    assert "6 Policy" in screen[1]


def test_who_uses_each_gpu_is_said_beside_it(screen):
    status = Demo(load(), MOMENT_US).answer(AskStatus(0))
    (training,) = [worker for worker in status.workers if worker.function == "train"]
    (caller,) = [peer.name for peer in status.peers if peer.peer == training.caller]
    assert found(screen, "GPU 0").rstrip().endswith(f"{caller}: train")
    assert found(screen, "GPU 1").rstrip().endswith("free")


def test_what_is_lent_and_what_it_earned_is_said(screen):
    assert "Lends 8 cores, 16.0 GiB, 2 GPUs" in screen[2]
    assert "run for others" in found(screen, "Given")


def test_the_frame_before_says_it_too():
    lines = frame(Demo(load(), MOMENT_US).glance(), 80, 24)
    assert found(lines, "GPU 0").rstrip().endswith(": train")
