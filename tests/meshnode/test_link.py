"""The lease conversation over in-process streams, on jumping time."""

import trio
from tests.meshnode.clocks import TrioClock

from potluck import wire
from potluck.wire import lease
from potluck.wire.lease import DEAD_AFTER_US, HEARTBEAT_US
from potluck_node.core.flow import FlowSender
from potluck_node.link import OUTBOX_BYTES_MAX, ROOM_WAIT_S, StreamLink
from potluck_node.payloads import Room
from potluck_node.transport.memory import MemoryNetwork, MemoryTransport, stream_pair


def link(stream, kind, take, **more):
    return StreamLink(stream, kind, take, TrioClock(), **more)


async def test_messages_of_all_sizes_arrive_in_order(autojump_clock):
    ours, theirs = stream_pair("a", "b")
    seen, done = [], trio.Event()
    payloads = [b"", b"x" * 100, b"y" * 700_000, b"z" * 9_000_000, b"end"]

    def take(message):
        seen.append(message.payload)
        if message.payload == b"end":
            done.set()

    caller = link(ours, lease.ToCaller, lambda message: None)
    provider = link(theirs, lease.ToProvider, take)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller.run)
        nursery.start_soon(provider.run)
        for number, payload in enumerate(payloads):
            caller.post(lease.Input(number, 1, payload))
        await done.wait()
        nursery.cancel_scope.cancel()
    assert seen == payloads


async def test_a_silent_peer_is_declared_dead_after_three_heartbeats(autojump_clock):
    network = MemoryNetwork()
    a, b = (MemoryTransport(network, peer, lambda key, value: None) for peer in "ab")
    ends = []

    async def serve(stream):
        ends.append(await link(stream, lease.ToProvider, lambda message: None).run())

    b.handle("/lease", serve)
    async with trio.open_nursery() as nursery:
        await nursery.start(a.serve)
        await nursery.start(b.serve)
        await a.connect("/memory/p2p/b")
        caller = link(await a.open("b", "/lease"), lease.ToCaller, lambda message: None)
        with trio.move_on_after(60):
            nursery.start_soon(caller.run)
            await trio.sleep(30)
            assert not ends
            network.silence("a", "b")
            start = trio.current_time()
            while not ends:
                await trio.sleep(0.1)
        assert "fell silent" in ends[0]
        assert trio.current_time() - start <= (DEAD_AFTER_US + 2 * HEARTBEAT_US) / 1e6
        nursery.cancel_scope.cancel()


async def test_a_slow_taker_slows_the_sender_and_nobody_dies(autojump_clock):
    ours, theirs = stream_pair("a", "b")
    seen = []

    async def slowly():
        await trio.sleep(2)

    caller = link(ours, lease.ToCaller, lambda message: None)
    provider = link(theirs, lease.ToProvider, lambda message: seen.append(message), ready=slowly)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller.run)
        nursery.start_soon(provider.run)
        for number in range(12):
            caller.post(lease.Input(number, 1, bytes(4 << 20)))
        start = trio.current_time()
        await caller.drained()
        assert caller._sender.waiting_bytes <= OUTBOX_BYTES_MAX
        assert trio.current_time() - start >= 10
        while len(seen) < 12:
            await trio.sleep(1)
        nursery.cancel_scope.cancel()


async def test_finish_sends_what_is_queued_first(autojump_clock):
    ours, theirs = stream_pair("a", "b")
    seen = []
    caller = link(ours, lease.ToCaller, lambda message: None)
    provider = link(theirs, lease.ToProvider, seen.append)
    results = {}

    async def run(name, each):
        results[name] = await each.run()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, "caller", caller)
        nursery.start_soon(run, "provider", provider)
        caller.post(lease.Input(1, 1, bytes(1 << 20)))
        caller.post(lease.CloseLease("done"))
        caller.finish()
    assert [type(message) for message in seen] == [lease.Input, lease.CloseLease]
    assert results["caller"] == ""


async def test_garbage_ends_the_link_with_the_reason(autojump_clock):
    for frame in (b"\x00", b"\xff\xff\xff\xff", _one_message(b"\xc1"), _one_message(wire.encode(lease.LeaseReady(1)))):
        ours, theirs = stream_pair("a", "b")
        await ours.send(frame)
        why = await link(theirs, lease.ToProvider, lambda message: None).run()
        assert "broke the protocol" in why, frame


def _one_message(data):
    sender = FlowSender()
    sender.post(data, control=False)
    return sender.frame()


LARGE = 3 << 20


async def test_a_peer_over_its_share_waits_until_there_is_room(autojump_clock):
    """What it sends next is kept by itself meanwhile; heartbeats go on, so nobody is taken for dead."""
    ours, theirs = stream_pair("a", "b")
    room, seen, ends = Room(20 << 20), [], []

    async def run(each):
        ends.append(await each.run())

    caller = link(ours, lease.ToCaller, lambda message: None)
    provider = link(theirs, lease.ToProvider, seen.append, room=room)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, caller)
        nursery.start_soon(run, provider)
        for number in range(12):
            caller.post(lease.Input(number, 1, bytes(LARGE)))
        await trio.sleep(10)
        held = len(seen)
        assert 4 <= held <= 6
        assert room.used <= room.limit
        seen.clear()
        with trio.fail_after(60):
            while held < 12:
                await trio.sleep(1)
                held += len(seen)
                seen.clear()
        assert not ends
        nursery.cancel_scope.cancel()


async def test_a_peer_that_finds_no_room_for_long_is_told_so(autojump_clock):
    ours, theirs = stream_pair("a", "b")
    room, seen, told = Room(20 << 20), [], []
    caller = link(ours, lease.ToCaller, lambda message: None)
    provider = link(theirs, lease.ToProvider, seen.append, room=room, no_room=told.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller.run)
        nursery.start_soon(provider.run)
        for number in range(12):
            caller.post(lease.Input(number, 1, bytes(LARGE)))
        start = trio.current_time()
        with trio.fail_after(10 * ROOM_WAIT_S):
            while not told:
                await trio.sleep(1)
        assert trio.current_time() - start >= ROOM_WAIT_S
        assert "its limit is 20 MiB" in told[0]
        nursery.cancel_scope.cancel()


async def test_without_anybody_to_tell_the_conversation_ends_with_the_reason(autojump_clock):
    ours, theirs = stream_pair("a", "b")
    caller, seen = link(ours, lease.ToProvider, lambda message: None), []
    provider = link(theirs, lease.ToProvider, seen.append, room=Room(8 << 20))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller.run)
        for number in range(4):
            caller.post(lease.Input(number, 1, bytes(LARGE)))
        assert "no room" in await provider.run()
        nursery.cancel_scope.cancel()
