"""The node's end of a worker's socket: what is sent at once, and what waits."""

import socket

import pytest
import trio

from potluck import wire
from potluck.frames import FrameReader
from potluck.wire.worker import RunInput, StopWorker, ToWorker
from potluck_node.sandbox.worker import SocketWorker


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        yield SocketWorker("ann-1", ours, lambda name: None), theirs


async def read(theirs, count):
    """The next messages that the worker gets."""
    reader, found = FrameReader(), []
    stream = trio.socket.from_stdlib_socket(theirs)
    while len(found) < count:
        found += [wire.decode(body, ToWorker) for body in reader.feed(await stream.recv(1 << 16))]
    return found


async def test_a_message_that_fits_is_sent_at_once(ends):
    worker, theirs = ends
    assert worker.send_now(StopWorker()) is None
    assert not worker.sending
    assert await read(theirs, 1) == [StopWorker()]


async def test_what_finds_no_room_is_sent_later_and_whole(ends):
    worker, theirs = ends
    sent, rest = [], None
    while rest is None:
        sent.append(RunInput(len(sent) + 1, bytes(60_000)))
        rest = worker.send_now(sent[-1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.send_rest, rest)
        assert await read(theirs, len(sent)) == sent


async def test_a_worker_that_is_gone_leaves_nothing_to_send(ends):
    worker, theirs = ends
    theirs.close()
    assert worker.send_now(StopWorker()) is None
