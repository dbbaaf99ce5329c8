"""Through routers, to a peer: with the help of a relay, which passes on what both say, or all that they send."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import trio
from multiaddr import Multiaddr

from potluck import wire
from potluck.wire import reach as messages
from potluck_ledger.keys import PrivateKey
from potluck_node.core import reach as core
from potluck_node.transport.framed import FramedStream
from potluck_node.transport.interface import CONNECT_TIMEOUT_S, PeerUnreachableError, TransportError
from potluck_node.transport.libp2p.dial import Dialer, reason
from potluck_node.transport.libp2p.guards import BufferedTcp
from potluck_node.transport.libp2p.pipe import MuxedPipe
from potluck_node.transport.libp2p.reach import ports, talk
from potluck_node.transport.libp2p.reach.circuits import CircuitEnd, join

if TYPE_CHECKING:
    from potluck_node.transport.libp2p.reach.service import Reach

log = logging.getLogger("potluck.reach")

# Both sides dial for so long, seconds: two SYNs that the routers drop are repeated after 1 and after 3 s.
PUNCH_S = 4.0
# Relays that are tried for one peer.
RELAYS_TRIED_MAX = 2


class Through:
    """Both ends, and the relay in between. Its connections run in `nursery`, which its host gives it."""

    def __init__(self, host: Any, dialer: Dialer, key: PrivateKey, reach: Reach) -> None:
        self._host, self._swarm, self._dialer = host, host.get_network(), dialer
        self._key, self._reach = key, reach
        self.nursery: trio.Nursery

    # Who asks

    async def bring(self, peer: str, relays: tuple[str, ...]) -> None:
        """Be connected to a peer. Raises `PeerUnreachableError`."""
        failures = []
        for address in relays[:RELAYS_TRIED_MAX]:
            try:
                relay = str(await self._dialer.connect(address))
                if await self._knock(relay, peer):
                    return
                await self._open_circuit(relay, peer)
                log.info("%s is reached through the relay %s", peer, relay)
                return
            except PeerUnreachableError as error:
                failures.append(f"through {address}: {error}")
        raise PeerUnreachableError("; ".join(failures) or "no relay of it is known")

    async def _knock(self, relay: str, peer: str) -> bool:
        """Have the peer dial us, or both dial at once. False when nothing came of it."""
        try:
            with trio.move_on_after(CONNECT_TIMEOUT_S + PUNCH_S):
                return await self._try_knock(relay, peer)
        except TransportError as error:
            log.info("%s does not come to meet us: %s", peer, error)
        return False

    async def _try_knock(self, relay: str, peer: str) -> bool:
        async with self._own(relay) as (kind, endpoints, port):
            nonce = secrets.token_bytes(messages.NONCE_BYTES)
            here = messages.Here(peer, nonce, talk.now_us(), kind, endpoints)
            async with talk.asking(self._dialer, relay) as stream:
                answer = await talk.ask(stream, messages.Knock(peer, talk.sign(self._key, here)), messages.Knocked)
            there = talk.check(answer.words, peer, self._key.peer)
            if there.nonce != nonce:
                raise PeerUnreachableError(f"{peer} answers another question")
            if self._reach.verdict.reachable:
                return await self._dialer.until_connected(peer, PUNCH_S)
            found = core.dialable(there.endpoints) if core.punchable(kind, there.kind) else ()
            return bool(found) and await self._punch(peer, port, found)

    @asynccontextmanager
    async def _own(self, relay: str) -> AsyncIterator[tuple[core.Kind, tuple[tuple[str, int], ...], int]]:
        """How we can be met, for as long as the block lasts, and the port from which a hole is punched: a new one each
        time, since the last pair of ports stays taken for a minute. Raises as `Reach.observing`."""
        verdict = self._reach.verdict
        if verdict.reachable or verdict.kind == "symmetric":
            yield verdict.kind, verdict.endpoints, 0
            return
        async with self._reach.observing(relay) as seen:
            yield verdict.kind, ((seen.host, seen.port),), seen.own

    async def _punch(self, peer: str, from_port: int, endpoints: tuple[tuple[str, int], ...]) -> bool:
        """Dial while they do. The lesser id is the client: one connection of both has two different ends, also when
        both asked at once."""
        tcp = await ports.punch(from_port, endpoints, PUNCH_S)
        if tcp is None:
            return peer in self._dialer.peers()
        host, port = tcp.socket.getpeername()[:2]
        if self._key.peer < peer:
            await self._dialer.upgrade(peer, tcp)
        else:
            self.nursery.start_soon(self._serve, tcp, Multiaddr(core.address_of(host, port)))
            if not await self._dialer.until_connected(peer, CONNECT_TIMEOUT_S):
                return False
        log.info("%s is reached by a hole punch, at %s port %d", peer, host, port)
        return True

    async def _serve(self, tcp: trio.SocketStream, maddr: Any) -> None:
        try:
            await self._swarm._handle_inbound_connection(BufferedTcp(tcp), maddr)
        except Exception as error:  # noqa: BLE001 - as above, and it may end nothing but this connection
            log.info("a punched connection ended: %s", reason(error))
        finally:
            await trio.aclose_forcefully(tcp)

    async def _open_circuit(self, relay: str, peer: str) -> None:
        """Raises `PeerUnreachableError`."""
        stream = await self._circuit_stream(relay)
        try:
            await talk.ask(stream, messages.Circuit(peer), messages.CircuitOpen)
            await self._dialer.secure(peer, self._end(stream), _circuit_address(relay, peer))
        except BaseException:
            with trio.CancelScope(shield=True):
                await stream.aclose()
            raise

    async def _circuit_stream(self, relay: str) -> FramedStream:
        stream = FramedStream(MuxedPipe(await self._dialer.open_here(relay, talk.REACH_PROTOCOL)), relay)
        self.nursery.start_soon(stream.run)
        return stream

    def _end(self, stream: FramedStream) -> CircuitEnd:
        end = CircuitEnd(stream)
        self.nursery.start_soon(end.run)
        return end

    # Who is asked, or asked to pass it on

    async def answer(self, stream: FramedStream, question: messages.Question) -> None:
        """Raises `TransportError`."""
        if self._dialer.remote_host(stream.peer) is None:
            raise PeerUnreachableError("nothing is passed on from relay to relay")
        match question:
            case messages.Knock():
                await self._pass_on(stream, question)
            case messages.Circuit(target):
                await self._relay(stream, target)
            case messages.Knocking() | messages.Incoming() if stream.peer not in self._reach.relays():
                raise PeerUnreachableError("you are no relay of ours")
            case messages.Knocking():
                await self._meet(stream, question)
            case messages.Incoming(peer):
                await self._accept_circuit(stream, peer)

    async def _pass_on(self, stream: FramedStream, question: messages.Knock) -> None:
        if why := self._reach.desk.may_ask(question.peer, trio.current_time()):
            raise PeerUnreachableError(why)
        async with talk.asking(self._dialer, question.peer) as further:
            answer = await talk.ask(further, messages.Knocking(stream.peer, question.words), messages.Knocked)
        await stream.send(wire.encode(answer))

    async def _relay(self, stream: FramedStream, target: str) -> None:
        if why := self._reach.desk.begin(stream.peer, target, trio.current_time()):
            raise PeerUnreachableError(why)
        try:
            async with talk.asking(self._dialer, target) as further:
                await talk.ask(further, messages.Incoming(stream.peer), messages.CircuitOpen)
                await stream.send(wire.encode(messages.CircuitOpen()))
                await join(self._reach.desk, stream, further)
        finally:
            self._reach.desk.end(stream.peer, target)

    async def _meet(self, stream: FramedStream, question: messages.Knocking) -> None:
        """Somebody wants to talk to us: say how we can be met, then dial them."""
        peer = question.peer
        theirs = talk.check(question.words, peer, self._key.peer)
        targets = core.dialable(theirs.endpoints)
        can_come = theirs.kind in ("open", "mapped")
        ours = self._reach.verdict
        if can_come or not core.punchable(ours.kind, theirs.kind):
            await self._tell(stream, peer, theirs, ours.kind, ours.endpoints)
            if can_come and targets and peer not in self._dialer.peers():
                await self._dial(peer, targets)
            return
        async with self._own(stream.peer) as (kind, endpoints, port):
            await self._tell(stream, peer, theirs, kind, endpoints)
            if targets and peer not in self._dialer.peers():
                await self._punch(peer, port, targets)

    async def _tell(
        self, stream: FramedStream, peer: str, theirs: messages.Here, kind: str, endpoints: tuple[tuple[str, int], ...]
    ) -> None:
        here = messages.Here(peer, theirs.nonce, talk.now_us(), kind, endpoints)
        await stream.send(wire.encode(messages.Knocked(talk.sign(self._key, here))))

    async def _dial(self, peer: str, targets: tuple[tuple[str, int], ...]) -> None:
        log.info("%s does not get through to us, and asks to be dialled", peer)
        with suppress(PeerUnreachableError):
            await self._dialer.dial(peer, tuple(core.address_of(*each) for each in targets))

    async def _accept_circuit(self, stream: FramedStream, peer: str) -> None:
        """Serve a connection through a relay, to its end."""
        await stream.send(wire.encode(messages.CircuitOpen()))
        end = self._end(stream)
        try:
            await self._swarm.serve_circuit(end, stream.peer, _circuit_address(stream.peer, peer))
        except Exception as error:  # noqa: BLE001 - as above
            log.info("a connection through %s ended: %s", stream.peer, reason(error))


def _circuit_address(relay: str, peer: str) -> Any:
    return Multiaddr(f"/p2p/{relay}/p2p-circuit/p2p/{peer}")
