"""Workers that flood the node with output or descriptors: what it takes in, and that it could be more."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import cloudpickle
import pytest
import trio
from tests.conformance import check_sandbox as suite
from tests.hostile.harness import LIMITS, PROGRAMS, bystander, inside_attack, open_descriptors
from tests.hostile.test_contained import launcher
from tests.meshnode.sandbox import worlds

from potluck.wire.worker import WorkerLog
from potluck_node.sandbox.bwrap import BwrapLauncher
from potluck_node.sandbox.interface import Worker, Zygote
from potluck_node.sandbox.worker import READ_BYTES, SocketWorker

__all__ = ["launcher"]

# `inside_…` is sent into the sandbox by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

# What a socket, two pipes and the program's own buffers hold, and room: bytes.
HELD_BYTES = 2 << 20


def inside_wait_until_still(path: str) -> int:
    """What stands in the file once it has stopped growing; 0 where there is none."""
    before, now = -1, 0
    while before != now:
        time.sleep(0.5)
        before, now = now, int(Path(path).read_text() or 0) if Path(path).exists() else 0
    return now


async def attack(worker: Worker, name: str) -> None:
    tools, source = ((PROGRAMS / f"{each}.py").read_text() for each in ("tools", name))
    await suite.post(worker, inside_attack, tools, source, {})


async def flood(zygote: Zygote, worker: Worker, read: int) -> int:
    """How many bytes the program's first thread could print once the node has read at least `read` of those."""
    watching = await suite.worker_of(zygote, "watching")
    await attack(worker, "log_flood")
    while read > 0:
        message = await worker.receive()
        assert isinstance(message, WorkerLog)
        # What the other thread and the subprocess print is not in the count: each takes what share of the room it can.
        read -= message.data.count(b"x") + message.data.count(b"y")
    return (await suite.call(watching, inside_wait_until_still, "/tmp/progress")).value


@pytest.mark.parametrize(("read", "contained"), [(1, True), (2 * HELD_BYTES, False)], ids=["unread", "read"])
async def test_a_flood_of_output_waits(read: int, contained: bool, launcher: BwrapLauncher, tmp_path: Path) -> None:
    """Nothing but the node's reading makes room: whoever reads more lets more be printed."""
    async with (
        bystander(launcher, tmp_path / "bystander") as works,
        suite.one_worker(worlds.opener_of(launcher, tmp_path), limits=LIMITS) as (zygote, worker),
    ):
        printed = await flood(zygote, worker, read)
        assert (printed < HELD_BYTES) == contained, printed
        await works()
        await worker.kill()
        assert "signal 9" in (await suite.end_of(worker)).reason
        await suite.goes_on(zygote)


def taking_descriptors(held: list[int]) -> contextlib.AbstractContextManager[object]:
    """A node that reads as careless programs do."""

    async def read(self: SocketWorker) -> None:
        await trio.lowlevel.wait_readable(self._channel)
        data, received, _, _ = socket.recv_fds(self._channel, READ_BYTES, 1000)
        held.extend(received)
        self._at_end = self._at_end or not data
        self._cut(data)

    return mock.patch.object(SocketWorker, "_read", read)


@pytest.fixture
def held() -> Iterator[list[int]]:
    taken: list[int] = []
    yield taken
    for each in taken:
        with contextlib.suppress(OSError):
            socket.close(each)


@pytest.mark.parametrize("careless", [False, True], ids=["whole", "careless"])
async def test_descriptors_do_not_pile_up(
    careless: bool, launcher: BwrapLauncher, tmp_path: Path, held: list[int]
) -> None:
    if careless and launcher.tier == "gvisor":
        pytest.skip("gVisor lets no descriptor of its kernel out")
    with taking_descriptors(held) if careless else contextlib.nullcontext():
        async with (
            bystander(launcher, tmp_path / "bystander") as works,
            suite.one_worker(worlds.opener_of(launcher, tmp_path), limits=LIMITS) as (_, worker),
        ):
            before = open_descriptors()
            await attack(worker, "descriptor_smuggling")
            sent = (await suite.outcome_of(worker)).value
            if launcher.tier == "bwrap":
                assert sent >= 250
            assert (open_descriptors() == before) != careless
            await works()
