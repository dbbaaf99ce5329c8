"""Members only: what a connection is good for before, and after, its peer has shown that it is one."""

from __future__ import annotations

import functools

import pytest
import trio
from libp2p.custom_types import TProtocol
from tests.conformance import check_transport as suite
from tests.meshnode.transport.test_libp2p import make, serving, world
from tests.meshnode.transport.test_libp2p_hostile import bare_host, dial, running

from potluck_node.transport.interface import CONNECT_TIMEOUT_S, NotAdmittedError, PeerUnreachableError, Stream
from potluck_node.transport.libp2p.admission import INTRODUCTION
from potluck_node.transport.libp2p.library import KAD_PROTOCOL

pytestmark = pytest.mark.e2e


class Password:
    """A mesh of those who know a word."""

    def __init__(self, word: bytes = b"sesame") -> None:
        self._word, self.members = word, set[str]()

    def admits(self, peer: str) -> bool:
        return peer in self.members

    async def introduce(self, stream: Stream) -> None:
        await stream.send(self._word)
        await self._hear(stream)

    async def answer(self, stream: Stream) -> None:
        await self._hear(stream)
        await stream.send(self._word)

    async def _hear(self, stream: Stream) -> None:
        if await stream.receive() != self._word:
            raise NotAdmittedError(f"{stream.peer} does not know the word")
        self.members.add(stream.peer)


@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check) -> None:
    await check(functools.partial(world, make_admission=Password))


async def test_one_that_does_not_know_the_word_reaches_nobody():
    inside, outside = make(admission=Password()), make(admission=Password(b"guess"))
    async with serving(inside, outside):
        for one, other in ((inside, outside), (outside, inside)):
            with pytest.raises(PeerUnreachableError):
                await one.connect(other.addresses()[0])
        assert (inside.peers(), outside.peers()) == ((), ())


async def test_a_node_without_admission_reaches_nobody():
    inside, outside = make(admission=Password()), make()
    async with serving(inside, outside):
        with pytest.raises(PeerUnreachableError):
            await inside.connect(outside.addresses()[0])
        with pytest.raises(PeerUnreachableError), trio.fail_after(2 * CONNECT_TIMEOUT_S):
            await outside.connect(inside.addresses()[0])
            await outside.open(inside.peer, suite.ECHO)
        assert inside.peers() == ()


@pytest.mark.parametrize("protocol", [suite.ECHO, KAD_PROTOCOL, "/ipfs/id/1.0.0", "/ipfs/ping/1.0.0", "/meshsub/1.1.0"])
async def test_the_library_alone_opens_no_stream(protocol):
    node = make(admission=Password())
    async with serving(node), running(bare_host()) as host:
        peer = await dial(host, node)
        with pytest.raises(Exception, match=r"."), trio.fail_after(2 * CONNECT_TIMEOUT_S):
            stream = await host.new_stream(peer, [TProtocol(protocol)])
            await stream.write(b"\x01")
            assert await stream.read(1) == b""
            raise ConnectionError("ended")
        assert node.peers() == ()
        # It is let go, too.
        await suite.eventually(lambda: not node._live.host.get_network().get_connections())


async def test_what_is_said_too_late_or_is_nonsense_admits_nobody():
    admission = Password()
    node = make(admission=admission)
    async with serving(node), running(bare_host()) as host:
        peer = await dial(host, node)
        stream = await host.new_stream(peer, [INTRODUCTION])
        await stream.write(b"\xff" * 1000)
        await suite.eventually(lambda: not node._live.host.get_network().get_connections())
        assert admission.members == set()


async def test_who_is_no_member_any_more_loses_all_streams():
    first, second = Password(), Password()
    a, b = make(admission=first), make(admission=second)
    async with serving(a, b):
        await a.connect(b.addresses()[0])
        stream = await a.open(b.peer, suite.SILENT)
        second.members.clear()
        await b.disconnect(a.peer)
        await suite.ended(stream)
        await suite.eventually(lambda: b.peer not in a.peers())
        assert b.peers() == ()
        first.members.clear()
        first._word = b"forgotten"
        with pytest.raises(PeerUnreachableError):
            await a.open(b.peer, suite.ECHO)
