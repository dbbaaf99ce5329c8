"""Lanes between real hosts: when there is one, when there is none, and that nobody gets one who should not."""

from __future__ import annotations

import ssl
from contextlib import suppress

import pytest
import trio
from tests.conformance import check_transport as suite
from tests.meshnode.transport.test_libp2p import echoes, make, serving, world

from potluck import wire
from potluck.wire.lane import MAGIC, LaneGranted, LaneRefused, LaneWanted
from potluck_ledger.keys import PrivateKey
from potluck_node.transport.framed import FramedStream
from potluck_node.transport.interface import StreamClosedError
from potluck_node.transport.lane import tickets
from potluck_node.transport.lane.certificate import make_certificate, tls_context
from potluck_node.transport.lane.pipe import TlsPipe
from potluck_node.transport.libp2p import guards, lanes
from potluck_node.transport.libp2p.lanes import LANE_PROTOCOL
from potluck_node.transport.libp2p.pipe import MuxedPipe

pytestmark = pytest.mark.e2e


def lanes_of(node) -> dict[str, int]:
    return dict(node._live.lanes.tickets.lanes)


def port_of(node) -> int:
    return int(node.addresses()[0].split("/")[4])


async def ask(here, there, certificate: bytes | None = None, protocol: str = suite.ECHO):
    """What `there` answers when `here` asks for a lane, None when it says nothing."""
    raw = await here._live.dialer.open(there.peer, LANE_PROTOCOL)
    stream = FramedStream(MuxedPipe(raw), there.peer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.run)
        own = here._live.lanes._own.der if certificate is None else certificate
        await stream.send(wire.encode(LaneWanted(protocol, own)))
        answer = None
        with suppress(StreamClosedError), trio.fail_after(suite.SETTLE_S):
            answer = wire.decode(await stream.receive(), LaneGranted | LaneRefused)
        await stream.aclose()
    return answer


async def shake(node, ticket: bytes, own, theirs: bytes) -> TlsPipe:
    """Come with a ticket, and prove to have the key of `own`."""
    tcp = await trio.open_tcp_stream("127.0.0.1", port_of(node))
    await tcp.send_all(MAGIC + ticket)
    pipe = TlsPipe(tcp, tls_context(own, theirs, server_side=False), server_side=False)
    await pipe.handshake()
    return pipe


async def test_streams_travel_on_lanes_in_both_directions_and_end():
    """c only was dialled by nobody: b, which c dialled, finds it by what identify said."""
    async with world() as (a, b, c):
        stream = await a.open(b.peer, suite.ECHO)
        assert isinstance(stream._pipe, TlsPipe)
        assert lanes_of(b) == {a.peer: 1}
        back = await b.open(c.peer, suite.ECHO)
        assert isinstance(back._pipe, TlsPipe)
        assert lanes_of(c) == {b.peer: 1}
        for each in (stream, back):
            await each.aclose()
        await suite.eventually(lambda: not lanes_of(b) and not lanes_of(c))


@pytest.mark.parametrize(("ours", "theirs"), [(False, True), (True, False)])
async def test_a_node_without_lanes_uses_streams(ours, theirs):
    a, b = make(lane=ours), make(lane=theirs)
    async with serving(a, b):
        await a.connect(b.addresses()[0])
        stream = await a.open(b.peer, suite.ECHO)
        assert isinstance(stream._pipe, MuxedPipe)
        await echoes(a, b)


async def test_a_lane_that_cannot_be_reached_becomes_a_stream_and_is_not_tried_again_at_once(monkeypatch):
    async with world() as (a, b, _):
        tried = []

        def nowhere(peer: str) -> list[tuple[str, int]]:
            tried.append(peer)
            return [("127.0.0.1", 9)]

        monkeypatch.setattr(a._live.dialer, "endpoints", nowhere)
        for _ in range(3):
            stream = await a.open(b.peer, suite.ECHO)
            assert isinstance(stream._pipe, MuxedPipe)
            await stream.send(b"hello")
            assert await stream.receive() == b"hello"
        assert tried == [b.peer]


async def test_a_lane_that_is_swallowed_becomes_a_stream_in_time(monkeypatch):
    monkeypatch.setattr(lanes, "OPEN_TIMEOUT_S", 0.3)
    async with world() as (a, b, _), trio.open_nursery() as nursery:

        async def swallow(stream: trio.SocketStream) -> None:
            await trio.sleep_forever()

        listeners = await nursery.start(trio.serve_tcp, swallow, 0)
        port = listeners[0].socket.getsockname()[1]
        monkeypatch.setattr(a._live.dialer, "endpoints", lambda peer: [("127.0.0.1", port)])
        start = trio.current_time()
        await echoes(a, b)
        assert trio.current_time() - start < 0.3 + suite.SETTLE_S / 10
        nursery.cancel_scope.cancel()


async def test_over_its_share_of_lanes_a_peer_gets_streams(monkeypatch):
    monkeypatch.setattr(tickets, "LANES_PER_PEER_MAX", 2)
    async with world() as (a, b, _):
        streams = [await a.open(b.peer, suite.ECHO) for _ in range(3)]
        assert [type(stream._pipe) for stream in streams] == [TlsPipe, TlsPipe, MuxedPipe]
        await streams[0].aclose()
        await suite.eventually(lambda: lanes_of(b) == {a.peer: 1})
        again = await a.open(b.peer, suite.ECHO)
        assert isinstance(again._pipe, TlsPipe)


# Who should not


async def test_without_a_ticket_nobody_gets_to_tls():
    async with world() as (a, b, _):
        own, theirs = make_certificate(PrivateKey.generate()), b._live.lanes._own.der
        with pytest.raises(OSError, match=r"."):
            await shake(b, bytes(16), own, theirs)
        await echoes(a, b)
        assert not b._live.host.get_network()._handshakes._pending


async def test_a_ticket_works_once():
    async with world() as (a, b, _):
        granted = await ask(a, b)
        pipe = await shake(b, granted.ticket, a._live.lanes._own, granted.certificate)
        with pytest.raises(OSError, match=r"."):
            await shake(b, granted.ticket, a._live.lanes._own, granted.certificate)
        await pipe.close()


async def test_a_stolen_ticket_is_worth_nothing_without_the_key_of_its_owner():
    """Tickets travel in the clear. The thief even has a certificate that is bound to a peer: its own."""
    async with world() as (a, b, _):
        granted = await ask(a, b)
        thief = make_certificate(PrivateKey.generate())
        with pytest.raises(OSError, match=r"."):
            pipe = await shake(b, granted.ticket, thief, granted.certificate)
            await pipe.read(1)  # in TLS 1.3 the client is done before it is refused
        await suite.eventually(lambda: not lanes_of(b))
        assert not b._live.streams.get(a.peer)


async def test_who_knows_our_certificate_cannot_answer_for_us():
    """The impostor sits at our address, knows our certificate, and lacks its key."""
    async with world() as (a, b, _), trio.open_nursery() as nursery:
        real, fake = b._live.lanes._own, make_certificate(PrivateKey.generate())
        heard: list[bytes] = []

        async def impostor(stream: trio.SocketStream) -> None:
            await stream.receive_some(24)
            pipe = TlsPipe(stream, tls_context(fake, a._live.lanes._own.der, server_side=True), server_side=True)
            with suppress(OSError):
                await pipe.handshake()
                heard.append(await pipe.read(100))

        listeners = await nursery.start(trio.serve_tcp, impostor, 0)
        monkey = [("127.0.0.1", listeners[0].socket.getsockname()[1])]
        a._live.dialer.endpoints = lambda peer: monkey
        stream = await a.open(b.peer, suite.ECHO)
        assert isinstance(stream._pipe, MuxedPipe)
        assert not heard
        assert real.der != fake.der
        nursery.cancel_scope.cancel()


async def test_nobody_gets_a_ticket_for_the_certificate_of_another():
    async with world() as (a, b, c):
        assert await ask(a, b, certificate=c._live.lanes._own.der) is None
        assert await ask(a, b, certificate=b"nonsense") is None
        assert isinstance(await ask(a, b), LaneGranted)


async def test_an_answer_with_the_certificate_of_another_is_not_taken(monkeypatch):
    async with world() as (a, b, c):
        monkeypatch.setattr(b._live.lanes, "_own", c._live.lanes._own)
        stream = await a.open(b.peer, suite.ECHO)
        assert isinstance(stream._pipe, MuxedPipe)


@pytest.mark.parametrize("answer", [b"", b"nonsense", wire.encode(LaneGranted(b"short", b"")), None])
async def test_an_answer_that_is_none_becomes_a_stream(monkeypatch, answer):
    async with world() as (a, b, _):

        async def say(stream):
            if answer is not None:
                await stream.send(answer)

        monkeypatch.setattr(b._live.lanes, "answer", say)
        stream = await a.open(b.peer, suite.ECHO)
        assert isinstance(stream._pipe, MuxedPipe)
        await stream.send(b"hello")
        assert await stream.receive() == b"hello"


async def test_unknown_protocols_get_no_lane():
    async with world() as (a, b, _):
        assert isinstance(await ask(a, b, protocol="/potluck/test/unknown/1"), LaneRefused)


async def test_older_tls_is_refused():
    async with world() as (a, b, _):
        granted = await ask(a, b)
        context = tls_context(a._live.lanes._own, granted.certificate, server_side=False)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        tcp = await trio.open_tcp_stream("127.0.0.1", port_of(b))
        await tcp.send_all(MAGIC + granted.ticket)
        pipe = TlsPipe(tcp, context, server_side=False)
        with pytest.raises(ssl.SSLError):
            await pipe.handshake()


async def test_on_a_private_mesh_members_alone_get_lanes():
    """A ticket is had on a stream alone, and without the pre-shared key there is no stream."""
    a, b, stranger = make(psk=b"k" * 32), make(psk=b"k" * 32), make()
    async with serving(a, b, stranger):
        await a.connect(b.addresses()[0])
        stream = await a.open(b.peer, suite.ECHO)
        assert isinstance(stream._pipe, TlsPipe)
        stranger.learn(b.peer, b.addresses())
        with pytest.raises(suite.PeerUnreachableError):
            await stranger.open(b.peer, suite.ECHO)
        own, theirs = stranger._live.lanes._own, b._live.lanes._own.der
        with pytest.raises(OSError, match=r"."):
            await shake(b, bytes(16), own, theirs)
        assert lanes_of(b) == {a.peer: 1}


async def test_a_ticket_and_then_silence_is_cut_off_in_time():
    async with world() as (a, b, _):
        granted = await ask(a, b)
        tcp = await trio.open_tcp_stream("127.0.0.1", port_of(b))
        start = trio.current_time()
        await tcp.send_all(MAGIC + granted.ticket)
        with suppress(trio.BrokenResourceError):
            assert await tcp.receive_some() == b""
        assert trio.current_time() - start < guards.HANDSHAKE_TIMEOUT_S + 1
        assert not lanes_of(b)


async def test_a_lane_that_is_cut_ends_its_stream_alone():
    async with world() as (a, b, _):
        cut, other = await a.open(b.peer, suite.ECHO), await a.open(b.peer, suite.ECHO)
        await cut.send(bytes(1 << 20))
        await trio.aclose_forcefully(cut._pipe._stream)
        with trio.fail_after(suite.SETTLE_S):
            assert await suite.ended(cut)
        await other.send(b"still here")
        assert await other.receive() == b"still here"
        await suite.eventually(lambda: lanes_of(b) == {a.peer: 1})


async def test_tampered_bytes_end_the_lane():
    async with world() as (a, b, _):
        stream = await a.open(b.peer, suite.ECHO)
        await stream.send(b"hello")
        assert await stream.receive() == b"hello"
        await stream._pipe._stream.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
        with trio.fail_after(suite.SETTLE_S):
            assert await suite.ended(stream)
        await echoes(a, b)
