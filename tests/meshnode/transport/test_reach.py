"""Relays and probes between real hosts on loopback; with routers in between: tests/e2e/test_reach.py."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from tests.conformance import check_transport as suite
from tests.meshnode.transport.test_libp2p import echoes, make, serving

from potluck import wire
from potluck.wire import reach as messages
from potluck_node.transport.interface import PeerUnreachableError, StreamClosedError
from potluck_node.transport.libp2p import pipe
from potluck_node.transport.libp2p.reach import talk
from potluck_node.transport.libp2p.reach.circuits import CircuitEnd
from potluck_node.transport.memory import stream_pair

pytestmark = pytest.mark.e2e


def circuit_to(relay, peer) -> str:
    return f"{relay.addresses()[0]}/p2p-circuit/p2p/{peer.peer}"


@asynccontextmanager
async def relayed(**options):
    """a, a relay, and b, which has a reservation there; a knows b by the relay alone."""
    a, relay, b = (make(**options) for _ in range(3))
    async with serving(a, relay, b):
        for node in (a, b):
            await node.connect(relay.addresses()[0])
        assert relay._live.reach.desk.reserve(b.peer, trio.current_time()) == ""
        b._live.reach._relays[relay.peer] = relay.addresses()[0], trio.current_time() + 600
        a.learn(b.peer, (circuit_to(relay, b),))
        yield a, relay, b


@pytest.mark.parametrize("psk", [None, bytes(range(32))], ids=["open", "psk"])
async def test_a_relayed_connection_is_as_any_other(psk):
    async with relayed(psk=psk) as (a, relay, b):
        await echoes(a, b)
        await echoes(b, a)
        assert a._live.dialer.is_relayed(b.peer)
        assert b._live.dialer.is_relayed(a.peer)
        assert relay._live.reach.desk.open == 1
        await a.disconnect(b.peer)
        await suite.eventually(lambda: relay._live.reach.desk.open == 0 and a.peer not in b.peers())


async def test_more_than_a_window_passes_and_frames_stay_whole():
    async with relayed() as (a, _, b):
        stream = await a.open(b.peer, suite.ECHO)
        frame = os.urandom(700_000)
        with trio.fail_after(suite.SETTLE_S):
            await stream.send(frame)
            assert await stream.receive() == frame


async def test_large_payloads_do_not_pass_and_the_error_says_so(monkeypatch):
    monkeypatch.setattr(pipe, "RELAYED_BYTES_MAX", 200_000)
    async with relayed() as (a, _, b):
        stream = await a.open(b.peer, suite.SILENT)
        assert a.carries(b.peer, suite.SILENT) == 200_000
        await stream.send(bytes(300_000))
        with pytest.raises(StreamClosedError, match="through a relay alone"):
            await stream.receive()
        with pytest.raises(PeerUnreachableError, match="through a relay alone"):
            await a.open(b.peer, suite.SILENT)
        assert a.carries(b.peer, suite.SILENT) == 0


async def test_a_relay_goes_and_the_connection_with_it():
    async with relayed() as (a, relay, b):
        stream = await a.open(b.peer, suite.ECHO)
        await relay.disconnect(b.peer)
        with trio.fail_after(suite.SETTLE_S):
            assert await suite.ended(stream)


async def test_whoever_has_no_reservation_is_not_relayed_to():
    async with relayed() as (a, relay, b):
        relay._live.reach.desk.reserved.clear()
        with pytest.raises(PeerUnreachableError, match="does not relay for that peer"):
            await a.open(b.peer, suite.ECHO)
        relay._live.reach.desk.enabled = False
        with pytest.raises(PeerUnreachableError, match="relays nothing"):
            await a.connect(circuit_to(relay, b))


async def question(here, there, asked: messages.Question):
    async with talk.asking(here._live.dialer, there.peer) as stream:
        await stream.send(wire.encode(asked))
        with trio.fail_after(suite.SETTLE_S):
            return wire.decode(await stream.receive(), messages.Answer)


async def test_only_our_own_relays_bring_others_to_us():
    async with relayed() as (a, relay, b):
        for asked in (messages.Knocking(a.peer, b""), messages.Incoming(a.peer)):
            answer = await question(a, relay, asked)
            assert answer == messages.ReachRefused("you are no relay of ours")
        forged = await question(relay, b, messages.Knocking(a.peer, b"nonsense"))
        assert isinstance(forged, messages.ReachRefused)
        # What the relay itself signs is not taken for a's.
        here = messages.Here(b.peer, bytes(16), talk.now_us(), "open", (("45.9.0.9", 4001),))
        false = await question(relay, b, messages.Knocking(a.peer, talk.sign(relay._key, here)))
        assert "did not say that" in false.why


@pytest.mark.parametrize(("age_us", "to", "why"), [(300_000_000, "b", "long ago"), (0, "relay", "not to us")])
async def test_words_are_for_one_peer_and_soon_forgotten(age_us, to, why):
    async with relayed() as (a, relay, b):
        whom = {"b": b.peer, "relay": relay.peer}[to]
        here = messages.Here(whom, bytes(16), talk.now_us() - age_us, "open")
        answer = await question(relay, b, messages.Knocking(a.peer, talk.sign(a._key, here)))
        assert why in answer.why


async def test_a_node_finds_out_where_it_is_seen_and_who_gets_in():
    everywhere = ("/ip4/0.0.0.0/tcp/0",)
    a, b = make(listen=everywhere), make(listen=everywhere)
    async with serving(a, b):
        changes = []
        a.moved = lambda: changes.append(a.addresses())
        await a.connect(b.addresses()[0])
        await suite.eventually(lambda: a._live.reach.verdict.kind == "open")
        host, port = a._live.reach.verdict.endpoints[0]
        assert f"/ip4/{host}/tcp/{port}/p2p/{a.peer}" in a.addresses()
        assert changes


async def test_nobody_is_dialled_at_a_port_of_a_service_or_on_our_own_machine(monkeypatch):
    everywhere = ("/ip4/0.0.0.0/tcp/0",)
    a, b = make(listen=everywhere), make(listen=everywhere)
    async with serving(a, b):
        await a.connect(b.addresses()[0])
        host = b._live.dialer.remote_host(a.peer)
        answer = await question(a, b, messages.DialBack((22, 80, 443), bytes(16)))
        assert answer == messages.DialledBack(host, ())
        assert isinstance(await question(a, b, messages.DialBack((4001,), b"short")), messages.ReachRefused)
        # Who comes through a proxy of ours may be anybody.
        monkeypatch.setattr(b._live.dialer, "remote_host", lambda peer: "127.0.0.1")
        assert isinstance(await question(a, b, messages.DialBack((4001,), bytes(16))), messages.ReachRefused)


async def test_an_unknown_probe_is_closed_at_once():
    async with relayed() as (_, relay, __):
        _, _, host, _, port, *_ = relay.addresses()[0].split("/")
        stream = await trio.open_tcp_stream(host, int(port))
        await stream.send_all(messages.MAGIC + bytes(16))
        with trio.fail_after(suite.SETTLE_S):
            assert await stream.receive_some() == b""


@pytest.mark.parametrize(
    "frames", [[b"\x07what"], [b"\x00"], [b"\x00" + bytes(messages.CIRCUIT_WINDOW_BYTES + 1)], [b""]]
)
async def test_an_end_that_breaks_the_rules_ends_the_circuit(frames):
    mine, theirs = stream_pair("a", "b")
    end = CircuitEnd(mine)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.run)
        for frame in frames:
            await theirs.send(frame)
        with trio.fail_after(suite.SETTLE_S), pytest.raises(Exception, match="circuit is gone"):
            while True:
                await end.read(1 << 20)


async def test_nothing_is_sent_that_was_not_granted():
    mine, theirs = stream_pair("a", "b")
    end = CircuitEnd(mine)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.run)
        nursery.start_soon(end.write, bytes(messages.CIRCUIT_WINDOW_BYTES + 1))
        got = 0
        while got < messages.CIRCUIT_WINDOW_BYTES:
            got += len(await theirs.receive()) - 1
        await trio.testing.wait_all_tasks_blocked(0.01)
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.05):
            await theirs.receive()
        await theirs.send(messages.CIRCUIT_READ + (1).to_bytes(4, "big"))
        assert await theirs.receive() == b"\x00\x00"
        nursery.cancel_scope.cancel()
