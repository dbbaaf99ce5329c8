"""The node's end of a worker's socket."""

from __future__ import annotations

import socket

import pytest
import trio

from potluck import wire
from potluck.frames import encode_frame
from potluck.wire.worker import WorkerLog
from potluck_node.sandbox.interface import WorkerEnded
from potluck_node.sandbox.worker import SocketWorker


@pytest.mark.parametrize("attempt", range(20))  # the scheduler draws who is first
async def test_an_end_in_the_middle_of_a_read_loses_and_swaps_nothing(attempt: int) -> None:
    ours, theirs = socket.socketpair()
    worker = SocketWorker("w", ours, lambda name: None)
    frames = b"".join(encode_frame(wire.encode(WorkerLog(1, 1, bytes([number]) * 1000))) for number in range(20))
    half = len(frames) // 2 - 7
    received = []

    async def receive() -> None:
        with pytest.raises(WorkerEnded, match="exit 0"):
            while True:
                received.append(await worker.receive())

    theirs.sendall(frames[:half])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.lowlevel.checkpoint()
        theirs.sendall(frames[half:])
        worker.end(0, "exit 0")
    theirs.close()
    assert [message.data[0] for message in received] == list(range(20))
