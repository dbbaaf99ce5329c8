"""Peers that are hostile or broken: one test for each trap of py-libp2p that was shown to work."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import libp2p
import pytest
import trio
from libp2p.crypto.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from libp2p.crypto.keys import KeyPair
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.utils.varint import encode_varint_prefixed
from multiaddr import Multiaddr
from tests.conformance import check_transport as suite
from tests.meshnode.transport.test_libp2p import echoes, make, serving, world

from potluck_ledger.keys import PrivateKey
from potluck_node.transport.interface import TRANSPORT_FRAME_BYTES_MAX, FrameTooLargeError
from potluck_node.transport.libp2p import guards
from potluck_node.transport.libp2p.library import KAD_PROTOCOL
from potluck_node.transport.queue import QUEUE_BYTES_MAX

pytestmark = pytest.mark.e2e


@asynccontextmanager
async def running(host: libp2p.IHost) -> AsyncIterator[libp2p.IHost]:
    async with host.run([]):
        yield host


def bare_host(**options) -> libp2p.IHost:
    """The library's own host, as anybody may run it."""
    return libp2p.new_host(key_pair=libp2p.create_new_ed25519_key_pair(), **options)


async def dial(host: libp2p.IHost, node) -> ID:
    peer = ID.from_string(node.peer)
    await host.get_network().dial_addr(Multiaddr(node.addresses()[0]), peer)
    return peer


async def test_silent_sockets_do_not_keep_a_new_peer_out():
    """With the library's own listener, a peer that comes after 400 silent sockets waits 9 s. What guards here: a
    handshake may take 2 s, and the newest of `HANDSHAKES_PER_ADDRESS_MAX` pushes out the oldest."""
    node, peer = make(), make()
    async with serving(node, peer), trio.open_nursery() as nursery:
        port = int(node.addresses()[0].split("/")[4])
        sockets = []

        async def connect() -> None:
            sockets.append(await trio.open_tcp_stream("127.0.0.1", port))

        async with trio.open_nursery() as connecting:
            for _ in range(400):
                connecting.start_soon(connect)
        pending = node._live.host.get_network()._handshakes._pending
        await suite.eventually(lambda: len(pending) == guards.HANDSHAKES_PER_ADDRESS_MAX)
        start = trio.current_time()
        await peer.connect(node.addresses()[0])
        await echoes(peer, node)
        assert trio.current_time() - start < guards.HANDSHAKE_TIMEOUT_S
        await suite.eventually(lambda: not pending)
        for socket in sockets:
            nursery.start_soon(socket.aclose)


async def test_established_connections_from_one_address_are_limited(monkeypatch):
    monkeypatch.setattr("potluck_node.transport.libp2p.guards.CONNECTIONS_PER_ADDRESS_MAX", 3)
    node, *peers = (make() for _ in range(5))
    async with serving(node, *peers):
        for peer in peers[:3]:
            await peer.connect(node.addresses()[0])
        with pytest.raises(suite.PeerUnreachableError):
            await peers[3].connect(node.addresses()[0])
        await echoes(peers[0], node)


async def test_connections_that_have_ended_do_not_count(monkeypatch):
    """The library counts every incoming connection against its maximum until the node stops."""
    monkeypatch.setattr("potluck_node.transport.libp2p.host.CONNECTIONS_MAX", 20)
    node, peer = make(), make()
    async with serving(node, peer):
        swarm = peer._live.host.get_network()
        for _ in range(30):
            connection = await swarm.dial_addr(Multiaddr(node.addresses()[0]), ID.from_string(node.peer))
            await connection.muxed_conn.secured_conn.close()
            await suite.eventually(lambda: not swarm.connections and not node.peers())
        await peer.connect(node.addresses()[0])
        await echoes(peer, node)


async def test_reader_that_pauses_is_not_reset():
    """Yamux resets a stream whose reader pauses for 5 s. Within the credit of a lease (4 MiB) ours drains it."""
    async with world() as (a, b, _):
        resume, received = trio.Event(), []

        async def pause(stream) -> None:
            await resume.wait()
            received.extend([len(await stream.receive()) for _ in range(4)])
            await stream.send(b"all")

        b._live.host.set_stream_handler(TProtocol("/pause"), lambda raw: b._accept(b._live, "/pause", pause, raw))
        stream = await a.open(b.peer, "/pause")
        for _ in range(4):
            await stream.send(bytes(1 << 20))
        await trio.sleep(6.5)
        resume.set()
        assert await stream.receive() == b"all"
        assert received == [1 << 20] * 4


async def test_peer_that_ignores_credit_and_window_is_cut_off_within_bounds():
    async with world() as (a, b, _), running(bare_host()) as host:
        raw = await host.new_stream(await dial(host, b), [TProtocol(suite.SILENT)])
        frame = struct.pack("!BBHII", 0, 0, 0, raw.muxed_stream.stream_id, 65_000) + bytes(65_000)
        with trio.move_on_after(20):
            for _ in range(1000):
                await raw.muxed_stream.conn._write_frame(frame)
        await suite.eventually(lambda: not b._live.streams.get(str(host.get_id())))
        buffers = [
            buffer
            for connection in b._live.host.get_network().get_connections()
            for buffer in connection.muxed_conn.stream_buffers.values()
        ]
        assert sum(map(len, buffers)) <= guards.STREAM_BUFFER_MAX
        await echoes(a, b)


def test_buffer_of_a_stream_is_bounded():
    buffers = guards._BoundedBuffers()
    buffers[1] = bytearray()
    buffers[1].extend(bytes(guards.STREAM_BUFFER_MAX))
    with pytest.raises(ValueError, match="window"):
        buffers[1].extend(b"x")
    assert guards.STREAM_BUFFER_MAX > QUEUE_BYTES_MAX


@pytest.mark.parametrize(
    "garbage",
    [b"\xff\xff\xff\xff", struct.pack(">I", TRANSPORT_FRAME_BYTES_MAX + 1) + b"x", b"GET / HTTP/1.1\r\n\r\n"],
    ids=["length-of-4-GiB", "one-byte-too-many", "http"],
)
async def test_garbage_ends_its_stream_only(garbage):
    async with world() as (a, b, _), running(bare_host()) as host:
        witness = await a.open(b.peer, suite.ECHO)
        ends: list[Exception] = []

        async def note(stream) -> None:
            try:
                await stream.receive()
            except Exception as error:
                ends.append(error)
                raise

        b._live.host.set_stream_handler(TProtocol("/note"), lambda raw: b._accept(b._live, "/note", note, raw))
        raw = await host.new_stream(await dial(host, b), [TProtocol("/note")])
        await raw.write(garbage)
        await suite.eventually(lambda: ends)
        assert isinstance(ends[0], FrameTooLargeError)
        assert str(host.get_id()) in str(ends[0])
        await witness.send(b"still here")
        assert await witness.receive() == b"still here"


async def test_handler_that_raises_outside_of_our_wrapper_does_not_end_the_host():
    async with world() as (a, b, _):

        async def bug(raw) -> None:
            raise ValueError("as a bug in one of the library's own handlers")

        b._live.host.set_stream_handler(TProtocol("/bug"), bug)
        live = b._live
        with suppress(suite.PeerUnreachableError):
            await suite.ended(await a.open(b.peer, "/bug"))
        await echoes(a, b)
        assert b._live is live


def forger(stolen: PrivateKey) -> libp2p.IHost:
    """A host that knows only the *public* key of somebody and claims to be him, in plaintext."""
    own = libp2p.create_new_ed25519_key_pair()

    class Claimed(Ed25519PrivateKey):
        def get_public_key(self):
            return Ed25519PublicKey.from_bytes(stolen.public.raw)

    claimed = KeyPair(Claimed.from_bytes(own.private_key.to_bytes()), own.public_key)
    security = {PLAINTEXT_PROTOCOL_ID: InsecureTransport(claimed)}
    return libp2p.new_host(key_pair=own, sec_opt=security, muxer_opt={TProtocol(YAMUX): Yamux})


async def test_stolen_public_key_opens_nothing():
    victim = PrivateKey.generate()
    naive = bare_host()
    async with naive.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]), running(forger(victim)) as host:
        # The library's default believes it: the attack as such works.
        connection = await host.get_network().dial_addr(naive.get_addrs()[0], naive.get_id())
        assert not connection.is_closed
        await suite.eventually(lambda: ID.from_string(victim.peer) in naive.get_network().connections)
    async with world() as (a, b, _), running(forger(victim)) as host:
        with pytest.raises(Exception, match="upgrade security"):
            await dial(host, b)
        assert victim.peer not in b.peers()
        await echoes(a, b)


@pytest.mark.parametrize("value", [b"0:expired", b"forged", b"9:" + bytes(1 << 17)], ids=["expired", "forged", "huge"])
async def test_bad_record_is_refused_where_it_is_stored(value):
    async with world() as (a, b, c):
        await a.put_record("gpu/x", b"1:good")
        key = b"/potluck/gpu/x"
        store = a._live.records._dht.value_store
        store.put(key, value)
        assert not await store._store_at_peer(ID.from_string(b.peer), key, value)
        assert b._live.records._dht.value_store.get(key).value == b"1:good"
        assert await c.get_record("gpu/x") == b"1:good"


async def test_record_outside_of_our_namespace_is_refused():
    async with world() as (a, b, _):
        store = a._live.records._dht.value_store
        for key in (b"/ipns/x", b"/pk/x", b"plain"):
            store.put(key, b"1:x")
            assert not await store._store_at_peer(ID.from_string(b.peer), key, b"1:x")
            assert b._live.records._dht.value_store.get(key) is None


async def test_garbage_in_the_dht_does_not_end_the_host():
    async with world() as (a, b, _), running(bare_host()) as host:
        peer = await dial(host, b)
        for garbage in (b"\xff" * 64, encode_varint_prefixed(b"\xff" * 64), b""):
            raw = await host.new_stream(peer, [KAD_PROTOCOL])
            await raw.write(garbage)
            await raw.close()
        await a.put_record("gpu/y", b"1:works")
        assert await b.get_record("gpu/y") == b"1:works"


async def test_gossip_flood_garbage_and_forged_authors():
    async with world() as (a, b, c), running(bare_host()) as host:
        heard: list[tuple[str, bytes]] = []

        async def note(peer: str, data: bytes) -> None:
            heard.append((peer, data))

        await b.subscribe("offers", note)
        peer = await dial(host, b)
        for garbage in (b"\xff" * 64, encode_varint_prefixed(b"\xff" * 64), encode_varint_prefixed(_forged(c.peer))):
            raw = await host.new_stream(peer, [TProtocol("/meshsub/1.1.0")])
            await raw.write(garbage)
        for number in range(2000):
            with trio.move_on_after(1):
                await raw.write(encode_varint_prefixed(_forged(c.peer, number)))
        await suite._publish_until(a, b"honest", lambda: heard)
        assert {author for author, _ in heard} == {a.peer}
        await echoes(a, b)


def _forged(author: str, number: int = 0) -> bytes:
    """A message in another's name, "signed" by nobody."""
    message = rpc_pb2.Message(
        data=b"forged",
        topicIDs=["offers"],
        from_id=ID.from_string(author).to_bytes(),
        seqno=number.to_bytes(8, "big"),
        signature=bytes(64),
    )
    return rpc_pb2.RPC(publish=[message]).SerializeToString()


@pytest.mark.parametrize(
    ("host", "unit"),
    [("127.0.0.1", "127.0.0.1"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("fe80::1%eth0", "fe80::/64")],
)
def test_limits_count_by_ipv4_address_or_ipv6_network(host, unit):
    assert guards.source(host) == unit


async def test_ipv6_peer_is_counted_by_its_network():
    node, peer = make(listen=("/ip6/::1/tcp/0",)), make()
    async with serving(node, peer):
        await peer.connect(node.addresses()[0])
        await echoes(peer, node)
        assert dict(node._live.host.get_network()._handshakes.established) == {"::/64": 1}
