"""Lanes of one host: asked for on a libp2p stream, opened to the address at which the peer is reached already.

The stream decides who may: it is authenticated, and only members of a private mesh have one. The lane then proves with
TLS that the same two peers are at its ends. Whatever fails here, a stream of libp2p does instead.
"""

from __future__ import annotations

import logging
import secrets
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass

import trio

from potluck import wire
from potluck.errors import RemoteProtocolError
from potluck.wire.lane import MAGIC, LaneGranted, LaneRefused, LaneWanted
from potluck_ledger.keys import PrivateKey
from potluck_node.transport.framed import FramedStream
from potluck_node.transport.interface import PeerUnreachableError, Stream, StreamClosedError
from potluck_node.transport.lane.certificate import make_certificate, peer_of, tls_context
from potluck_node.transport.lane.pipe import TlsPipe
from potluck_node.transport.lane.tickets import TICKET_BYTES, Pass, Tickets
from potluck_node.transport.libp2p.dial import Dialer
from potluck_node.transport.libp2p.guards import HANDSHAKE_TIMEOUT_S, BufferedTcp
from potluck_node.transport.libp2p.pipe import MuxedPipe

log = logging.getLogger("potluck.transport")

LANE_PROTOCOL = "/potluck/lane/1"

# Asking, connecting and proving together. A peer that takes longer is asked again only after `AGAIN_S`, so that a
# firewall which swallows lanes costs little. Seconds.
OPEN_TIMEOUT_S = 2.0
AGAIN_S = 60.0

# Peers of whom that is remembered.
WITHOUT_MAX = 1000


class LaneError(Exception):
    """There is no lane; the text says why."""


@dataclass(frozen=True)
class Lane:
    """An open one that a peer asked for."""

    pipe: TlsPipe
    peer: str
    protocol: str


class Lanes:
    """Both sides of lanes."""

    def __init__(self, key: PrivateKey, dialer: Dialer, protocols: frozenset[str]) -> None:
        self._own, self._dialer, self._protocols = make_certificate(key), dialer, protocols
        self.tickets = Tickets()
        self._without: OrderedDict[str, float] = OrderedDict()

    # The side that is asked

    async def answer(self, stream: Stream) -> None:
        """Serve one stream of `LANE_PROTOCOL`."""
        with trio.move_on_after(HANDSHAKE_TIMEOUT_S):
            with suppress(StreamClosedError, RemoteProtocolError, ValueError):
                await stream.send(wire.encode(self._answer(await stream.receive(), stream.peer)))
                await stream.receive()  # until the other side has read it

    def _answer(self, question: bytes, peer: str) -> LaneGranted | LaneRefused:
        wanted = wire.decode(question, LaneWanted)
        _check(wanted.certificate, peer)
        if wanted.protocol not in self._protocols:
            return LaneRefused("unknown protocol")
        ticket = secrets.token_bytes(TICKET_BYTES)
        good_for = Pass(peer, wanted.protocol, wanted.certificate)
        if not self.tickets.issue(ticket, good_for, trio.current_time()):
            return LaneRefused("too many lanes")
        return LaneGranted(ticket, self._own.der)

    async def accept(self, tcp: BufferedTcp) -> Lane:
        """The lane that a connection is to become, after its `MAGIC`; `tickets.ended` has to be called at its end.

        Raises `LaneError`.
        """
        try:
            good_for = self.tickets.redeem(await tcp.read_exactly(TICKET_BYTES), trio.current_time())
        except OSError as error:
            raise LaneError(str(error)) from None
        if good_for is None:
            raise LaneError("nobody was given this ticket")
        try:
            pipe = await self._secure(tcp, good_for.certificate, server_side=True)
        except BaseException:
            self.tickets.ended(good_for.peer)
            raise
        return Lane(pipe, good_for.peer, good_for.protocol)

    # The side that asks

    async def open(self, peer: str, protocol: str) -> TlsPipe | None:
        """A lane to a peer that is connected, None when there is none to be had."""
        if self._without.get(peer, 0.0) > trio.current_time():
            return None
        try:
            with trio.fail_after(OPEN_TIMEOUT_S):
                granted = await self._ask(peer, protocol)
                return await self._connect(peer, granted) if granted else None
        except (LaneError, PeerUnreachableError, ValueError) as error:
            self._remember(peer, str(error))
        except trio.TooSlowError:
            self._remember(peer, f"none within {OPEN_TIMEOUT_S} s")
        return None

    def _remember(self, peer: str, why: str) -> None:
        log.info("no lane to %s, so a stream instead: %s", peer, why)
        self._without[peer] = trio.current_time() + AGAIN_S
        self._without.move_to_end(peer)
        if len(self._without) > WITHOUT_MAX:
            self._without.popitem(last=False)

    async def _ask(self, peer: str, protocol: str) -> LaneGranted | None:
        stream = FramedStream(MuxedPipe(await self._dialer.open(peer, LANE_PROTOCOL)), peer)
        why = ""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.run)
            try:
                await stream.send(wire.encode(LaneWanted(protocol, self._own.der)))
                answer = wire.decode(await stream.receive(), LaneGranted | LaneRefused)
            except (StreamClosedError, RemoteProtocolError) as error:
                why = str(error)  # raised only outside of the nursery, which would make a group of it
            finally:
                with trio.CancelScope(shield=True):
                    await stream.aclose()
        if why:
            raise LaneError(why)
        if isinstance(answer, LaneRefused):
            log.debug("%s gives no lane: %s", peer, answer.reason)
            return None
        if len(answer.ticket) != TICKET_BYTES:
            raise LaneError("the ticket is none")
        _check(answer.certificate, peer)
        return answer

    async def _connect(self, peer: str, granted: LaneGranted) -> TlsPipe:
        """Race the addresses: the ticket works once, and only the peer itself can prove who it is."""
        found: list[TlsPipe] = []
        failures: list[str] = []

        async def attempt(host: str, port: int) -> None:
            try:
                pipe = await self._try(host, port, granted)
            except (LaneError, OSError) as error:
                failures.append(f"{host} port {port}: {error}")
                return
            found.append(pipe)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for host, port in self._dialer.endpoints(peer):
                nursery.start_soon(attempt, host, port)
        if not found:
            raise LaneError("; ".join(failures) or "no address of it is known")
        return found[0]

    async def _try(self, host: str, port: int, granted: LaneGranted) -> TlsPipe:
        stream = await trio.open_tcp_stream(host, port)
        try:
            tcp = BufferedTcp(stream)
            await stream.send_all(MAGIC + granted.ticket)
            return await self._secure(tcp, granted.certificate, server_side=False)
        except trio.BrokenResourceError as error:
            await trio.aclose_forcefully(stream)
            raise LaneError(f"the connection is gone: {error}") from None
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise

    async def _secure(self, tcp: BufferedTcp, theirs: bytes, *, server_side: bool) -> TlsPipe:
        try:
            context = tls_context(self._own, theirs, server_side=server_side)
            pipe = TlsPipe(tcp.stream, context, server_side=server_side)
            await pipe.handshake()
        except (OSError, ValueError) as error:
            raise LaneError(f"the other side cannot prove who it is: {error}") from None
        if pipe.certificate() != theirs:
            raise LaneError("the other side shows another certificate")
        return pipe


def _check(certificate: bytes, peer: str) -> None:
    """Raises `ValueError` unless the certificate is bound to the peer."""
    if peer_of(certificate) != peer:
        raise ValueError(f"{peer} shows the certificate of another peer")
