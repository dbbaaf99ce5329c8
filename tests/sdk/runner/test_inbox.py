"""Who reads the worker's socket, and that each message comes to whom it is for."""

import socket
import threading

import pytest

from potluck import wire
from potluck.frames import encode_frame
from potluck.runner.inbox import Inbox
from potluck.wire.state import StateTold
from potluck.wire.worker import StopInput


class World:
    def __init__(self):
        self.node, self.worker = socket.socketpair()
        self.answers, self.came = [], threading.Semaphore(0)
        self.inbox = Inbox(self.worker.fileno(), self._told)

    def _told(self, number, payload, failure):
        self.answers.append((number, bytes(payload)))
        self.came.release()

    def send(self, *messages):
        self.node.sendall(b"".join(encode_frame(wire.encode(message)) for message in messages))


@pytest.fixture
def world():
    made = World()
    yield made
    made.node.close()
    while made.inbox.get() is not None:
        pass
    made.worker.close()


def test_nobody_reads_but_the_main_thread_before_anybody_asks(world):
    before = threading.active_count()
    world.send(StateTold(1, b"a"), StopInput(5))
    assert world.inbox.get()[:2] == ["StopInput", 5]
    assert world.answers == [(1, b"a")]
    assert threading.active_count() == before


def test_answers_arrive_while_the_main_thread_does_something_else(world):
    world.inbox.listen()
    world.send(StopInput(1), StateTold(2, b"b"))
    assert world.came.acquire(timeout=20)
    assert world.inbox.get()[:2] == ["StopInput", 1]


def test_whoever_asks_while_the_main_thread_reads_is_read_for_afterwards(world):
    got = []
    reader = threading.Thread(target=lambda: got.append(world.inbox.get()))
    reader.start()
    while not world.inbox._reading:
        pass
    world.inbox.listen()
    world.send(StateTold(1, b"a"), StopInput(3), StateTold(2, b"b"))
    reader.join(20)
    assert got[0][:2] == ["StopInput", 3]
    assert world.came.acquire(timeout=20)
    assert world.came.acquire(timeout=20)
    assert world.answers == [(1, b"a"), (2, b"b")]


def test_nonsense_is_raised_where_messages_are_taken(world):
    world.inbox.listen()
    world.node.sendall(encode_frame(b"\xc1"))
    with pytest.raises(ValueError, match="unknown msgpack"):
        world.inbox.get()
