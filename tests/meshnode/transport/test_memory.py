from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance import check_transport as suite

from potluck_node.transport.common import (
    BACKOFF_JITTER,
    BACKOFF_MAX_S,
    TOPIC_QUEUE_MAX,
    TopicInbox,
    backoff_s,
)
from potluck_node.transport.interface import (
    CONNECT_TIMEOUT_S,
    PeerUnreachableError,
    StreamClosedError,
)
from potluck_node.transport.memory import MemoryNetwork, MemoryTransport, stream_pair
from potluck_node.transport.queue import FRAME_COST, QUEUE_BYTES_MAX


@asynccontextmanager
async def world(delay_s: float = 0.0) -> AsyncIterator[tuple[MemoryTransport, MemoryTransport, MemoryTransport]]:
    network = MemoryNetwork(delay_s)
    nodes = [MemoryTransport(network, f"peer-{name}", suite.rank) for name in "abc"]
    async with trio.open_nursery() as nursery:
        for node in nodes:
            for protocol, handler in suite.HANDLERS.items():
                node.handle(protocol, handler)
            await nursery.start(node.serve)
        a, b, c = nodes
        await a.connect(b.addresses()[0])
        await c.connect(b.addresses()[0])
        yield a, b, c
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check, autojump_clock):
    await check(world)


@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.__name__)
async def test_conformance_over_a_slow_link(check, autojump_clock):
    await check(lambda: world(delay_s=0.0002))


async def test_delay_is_per_trip_and_does_not_lower_throughput(autojump_clock):
    near, far = stream_pair("near", "far", delay_s=1.0)
    start = trio.current_time()
    for number in range(10):
        await near.send(b"%d" % number)
    assert [await far.receive() for _ in range(10)] == [b"%d" % number for number in range(10)]
    assert trio.current_time() - start == pytest.approx(1.0)


async def test_full_queue_makes_the_sender_wait(autojump_clock):
    near, far = stream_pair("near", "far")
    frame = bytes(1 << 20)
    for _ in range((QUEUE_BYTES_MAX >> 20) - 1):
        await near.send(frame)
    with trio.move_on_after(60) as scope:
        await near.send(frame)
    assert scope.cancelled_caught
    assert await far.receive() == frame
    await near.send(frame)


async def test_empty_frames_fill_a_queue_too(autojump_clock):
    near, _ = stream_pair("near", "far")
    with trio.move_on_after(60) as scope:
        for _ in range(QUEUE_BYTES_MAX // FRAME_COST + 1):
            await near.send(b"")
    assert scope.cancelled_caught


async def test_cut_is_noticed_at_once_and_healed(autojump_clock):
    async with world() as (a, b, _):
        stream = await a.open(b.peer, suite.SILENT)
        a._network.cut(a.peer, b.peer)
        with pytest.raises(StreamClosedError, match="gone"):
            await stream.receive()
        assert b.peer not in a.peers()
        with pytest.raises(PeerUnreachableError):
            await a.connect(b.addresses()[0])
        a._network.heal(a.peer, b.peer)
        await a.connect(b.addresses()[0])
        await suite.check_echo(world)


async def test_silence_is_noticed_by_nobody(autojump_clock):
    async with world() as (a, b, _):
        stream = await a.open(b.peer, suite.ECHO)
        a._network.silence(a.peer, b.peer)
        await stream.send(b"hello?")
        with trio.move_on_after(3600) as scope:
            await stream.receive()
        assert scope.cancelled_caught
        start = trio.current_time()
        with pytest.raises(PeerUnreachableError):
            await a.connect(b.addresses()[0])
        assert trio.current_time() - start == pytest.approx(CONNECT_TIMEOUT_S)
        a._network.heal(a.peer, b.peer)
        assert await stream.receive() == b"hello?"


async def test_cancelled_serve_closes_streams(autojump_clock):
    network = MemoryNetwork()
    a, b = (MemoryTransport(network, peer, suite.rank) for peer in ("a", "b"))
    b.handle(suite.ECHO, suite.echo)
    async with trio.open_nursery() as nursery:
        await nursery.start(a.serve)
        async with trio.open_nursery() as inner:
            await inner.start(b.serve)
            await a.connect(b.addresses()[0])
            stream = await a.open("b", suite.ECHO)
            inner.cancel_scope.cancel()
        assert b.addresses() == ()
        assert await suite.ended(stream)
        nursery.cancel_scope.cancel()


async def test_bootstrap_peer_that_comes_late_and_restarts(autojump_clock):
    network = MemoryNetwork()
    a = MemoryTransport(network, "a", suite.rank, bootstrap=["/memory/p2p/b"])
    b = MemoryTransport(network, "b", suite.rank)
    async with trio.open_nursery() as nursery:
        await nursery.start(a.serve)
        await trio.sleep(600)
        for _ in range(2):
            async with trio.open_nursery() as inner:
                await inner.start(b.serve)
                with trio.fail_after(BACKOFF_MAX_S * 2):
                    await suite.eventually(lambda: a.peers() == ("b",))
                inner.cancel_scope.cancel()
            assert a.peers() == ()
        nursery.cancel_scope.cancel()


@given(failures=st.integers(1, 10_000), draw=st.floats(0, 1, exclude_max=True))
def test_backoff_grows_to_a_cap(failures, draw):
    delay = backoff_s(failures, draw)
    assert 0 < delay <= BACKOFF_MAX_S * (1 + BACKOFF_JITTER)
    assert delay <= backoff_s(failures + 1, draw)


async def test_topic_inbox_drops_what_its_handler_cannot_take():
    heard = []

    async def handler(peer: str, data: bytes) -> None:
        heard.append(data)

    inbox = TopicInbox("offers", handler)
    for number in range(TOPIC_QUEUE_MAX + 10):
        inbox.put("peer", b"%d" % number)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbox.serve)
        await suite.eventually(lambda: len(heard) == TOPIC_QUEUE_MAX)
        nursery.cancel_scope.cancel()
    assert heard[-1] == b"%d" % (TOPIC_QUEUE_MAX - 1)
