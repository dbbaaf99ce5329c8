"""The libp2p transport, with real sockets on loopback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from tests.conformance import check_transport as suite

from potluck_ledger.keys import PrivateKey
from potluck_node.transport.framed import FLUSH_S
from potluck_node.transport.interface import (
    CONNECT_TIMEOUT_S,
    Admission,
    PeerUnreachableError,
    TransportError,
)
from potluck_node.transport.libp2p import Libp2pTransport
from potluck_node.transport.libp2p.dial import SHUTDOWN_S

pytestmark = pytest.mark.e2e

LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)


def make(
    bootstrap: tuple[str, ...] = (),
    listen: tuple[str, ...] = LOOPBACK,
    key: PrivateKey | None = None,
    rank=suite.rank,
    **options,
) -> Libp2pTransport:
    node = Libp2pTransport(key or PrivateKey.generate(), listen, bootstrap, rank, **options)
    for protocol, handler in suite.HANDLERS.items():
        node.handle(protocol, handler)
    return node


@asynccontextmanager
async def serving(*nodes: Libp2pTransport) -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        for node in nodes:
            await nursery.start(node.serve)
        yield nursery
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def world(
    make_admission: Callable[[], Admission | None] = lambda: None, **options
) -> AsyncIterator[tuple[Libp2pTransport, Libp2pTransport, Libp2pTransport]]:
    a, b, c = (make(admission=make_admission(), **options) for _ in range(3))
    async with serving(a, b, c):
        await a.connect(b.addresses()[0])
        await c.connect(b.addresses()[0])
        await suite.eventually(lambda: {a.peer, c.peer} <= set(b.peers()))
        yield a, b, c


async def echoes(here: Libp2pTransport, there: Libp2pTransport) -> None:
    """Assert that a new stream works."""
    stream = await here.open(there.peer, suite.ECHO)
    await stream.send(b"hello")
    with trio.fail_after(suite.SETTLE_S):
        assert await stream.receive() == b"hello"
    await stream.aclose()


@pytest.mark.parametrize("lane", [True, False], ids=["lane", "stream"])
@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check, lane):
    with trio.fail_after(60):
        await check(lambda: world(lane=lane))


def test_the_package_transport_does_not_load_libp2p():
    code = "import sys, potluck_node.transport.memory; sys.exit('libp2p' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_wildcard_address_becomes_one_that_can_be_dialled():
    a, b = make(), make(listen=("/ip4/0.0.0.0/tcp/0",))
    async with serving(a, b):
        assert b.addresses()
        assert not any("/0.0.0.0/" in address for address in b.addresses())
        assert await a.connect(b.addresses()[-1]) == b.peer


async def test_unreachable_names_the_addresses_and_does_not_block_a_later_success():
    a, b = make(), make()
    async with serving(a, b):
        dead = "/ip4/127.0.0.1/tcp/1"
        a.learn(b.peer, (dead,))
        with pytest.raises(PeerUnreachableError, match=f"{dead}.*refused"):
            await a.open(b.peer, suite.ECHO)
        a.learn(b.peer, (dead, "rubbish", b.addresses()[0]))
        await echoes(a, b)


async def test_wrong_identity_at_the_address_is_refused():
    a, b = make(), make()
    async with serving(a, b):
        address = b.addresses()[0].replace(b.peer, PrivateKey.generate().peer)
        with pytest.raises(PeerUnreachableError):
            await a.connect(address)
        assert a.peers() == ()


async def test_cancelled_serve_leaves_no_socket_no_task_and_does_not_hang():
    living = trio.lowlevel.current_statistics().tasks_living
    a, b = make(), make()
    async with serving(a, b) as nursery:
        await a.connect(b.addresses()[0])
        streams = [await a.open(b.peer, suite.SILENT) for _ in range(3)]
        await streams[0].send(bytes(1000))
        port = int(b.addresses()[0].split("/")[4])
        start = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - start < SHUTDOWN_S + FLUSH_S + 1
    assert a.addresses() == b.addresses() == a.peers() == ()
    assert trio.lowlevel.current_statistics().tasks_living == living
    with pytest.raises(OSError, match="all attempts"):
        await trio.open_tcp_stream("127.0.0.1", port)
    with pytest.raises(PeerUnreachableError, match="not on the mesh"):
        await a.open(b.peer, suite.ECHO)


async def test_port_that_is_taken_gives_a_clear_error():
    a = make()
    async with serving(a):
        port = a.addresses()[0].split("/")[4]
        second = make(listen=(f"/ip4/127.0.0.1/tcp/{port}",))
        with pytest.RaisesGroup(pytest.RaisesExc(TransportError, match="another node"), flatten_subgroups=True):
            await second.serve()


def test_bootstrap_address_that_is_none_is_refused_at_once():
    with pytest.raises(PeerUnreachableError, match="/p2p/<peer>"):
        make(bootstrap=("/ip4/127.0.0.1/tcp/4001",))


async def test_bootstrap_peer_that_comes_late_and_restarts():
    key = PrivateKey.generate()
    b = make(key=key)
    async with serving(b):
        address = b.addresses()[0]
    a = make(bootstrap=(address,))
    async with serving(a):
        assert a.peers() == ()
        for _ in range(2):
            async with serving(make(key=key, listen=(address.partition("/p2p/")[0],))):
                await suite.eventually(lambda: a.peers() == (b.peer,))
            await suite.eventually(lambda: a.peers() == ())


async def test_host_is_started_again_when_the_library_fails_inside():
    async with world() as (a, b, _):
        heard: list[bytes] = []

        async def note(peer: str, data: bytes) -> None:
            heard.append(data)

        await b.subscribe("offers", note)
        address = b.addresses()[0]

        async def bug() -> None:
            raise RuntimeError("a bug inside the library")

        failed = b._live
        failed.host.get_network().manager.run_task(bug)
        await suite.eventually(lambda: b._live is not None and b._live is not failed)
        assert b.addresses() == (address,)
        await suite.eventually(lambda: b.peer not in a.peers())
        await a.connect(address)
        await echoes(a, b)
        with trio.fail_after(suite.SETTLE_S):
            while not heard:
                await a.publish("offers", b"after")
                await trio.sleep(0.2)


async def test_too_many_streams_fail_clearly_and_closing_makes_room(monkeypatch):
    monkeypatch.setattr("potluck_node.transport.libp2p.transport.STREAMS_PER_PEER_MAX", 20)
    async with world() as (a, b, _):
        streams = [await a.open(b.peer, suite.ECHO) for _ in range(20)]
        with pytest.raises(PeerUnreachableError, match="20 streams"):
            await a.open(b.peer, suite.ECHO)
        for stream in streams[:10]:
            await stream.aclose()
        await suite.eventually(lambda: len(b._live.streams.get(a.peer, ())) <= 10)
        await echoes(a, b)


async def test_private_mesh_takes_those_with_the_key_and_nobody_else():
    a, b = make(psk=b"k" * 32), make(psk=b"k" * 32)
    stranger, wrong = make(), make(psk=b"x" * 32)
    async with serving(a, b, stranger, wrong):
        await a.connect(b.addresses()[0])
        await echoes(a, b)
        for other in (stranger, wrong):
            start = trio.current_time()
            with pytest.raises(PeerUnreachableError):
                await other.connect(b.addresses()[0])
            assert trio.current_time() - start < CONNECT_TIMEOUT_S + 1
        assert b.peers() == (a.peer,)


async def test_record_expires_where_it_is_stored_and_where_it_is_read():
    valid = {"now"}

    def rank(key: str, value: bytes) -> int | None:
        return 1 if value.decode() in valid else None

    async with world(rank=rank) as (a, b, c):
        await a.put_record("offer", b"now")
        assert await c.get_record("offer") == b"now"
        valid.clear()
        assert await c.get_record("offer") is None
        valid.add("later")
        await b.put_record("offer", b"later")
        assert await c.get_record("offer") == b"later"


async def test_dht_operations_end_when_peers_are_gone():
    async with world() as (a, b, c):
        for node in (b, c):
            for connection in node._live.host.get_network().get_connections():
                await connection.muxed_conn.secured_conn.close()
        with trio.fail_after(30):
            await a.put_record("gpu/x", b"1:mine")
            assert await a.get_record("gpu/x") == b"1:mine"
            await a.provide("gpu/x")
            assert a.peer not in await a.find_providers("gpu/x")
