"""What one node does to be reached, and to reach others: observes itself, keeps relays, answers what peers ask."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import trio

from potluck import wire
from potluck.errors import RemoteProtocolError
from potluck.wire import reach as messages
from potluck.wire.doctor import AskReach, ReachReport
from potluck_ledger.keys import PrivateKey
from potluck_node.core import reach as core
from potluck_node.core.circuits import RESERVATION_S, Desk
from potluck_node.transport.framed import FramedStream
from potluck_node.transport.interface import PeerUnreachableError, Stream, TransportError
from potluck_node.transport.libp2p.dial import Dialer
from potluck_node.transport.libp2p.reach import ports, talk, upload
from potluck_node.transport.libp2p.reach.through import Through

log = logging.getLogger("potluck.reach")

# How often it is looked whether peers came or went, and how long what an observer said counts, seconds.
LOOK_S, REPORT_LIFE_S = 1.0, 300.0
# Peers that are asked how we look; and those that pass on what others ask of us: one may go at any time.
OBSERVERS_MAX, RELAYS_MAX = 3, 2
# Before a peer is asked again that refused, or did not answer, seconds.
AGAIN_S = 60.0
# Dialling a peer back, for its sake: it waits for that, and nothing else does. Seconds, ports, and how many at once.
DIAL_BACK_S, DIAL_BACK_PORTS_MAX, DIALS_MAX = 2.0, 2, 8


@dataclass(frozen=True)
class Seen:
    """Host and port that a peer saw, of a connection from our own port `own`."""

    host: str
    port: int
    own: int


class Reach:
    """Of one host. `port` is that which it listens on, for others than itself; 0 if there is none."""

    def __init__(self, host: Any, dialer: Dialer, key: PrivateKey, port: int, relay: bool) -> None:
        self._host, self._dialer, self._key, self._port = host, dialer, key, port
        self.verdict = core.Verdict()
        self.probes, self.desk = ports.Probes(), Desk(relay)
        self.changed: Callable[[], None] = lambda: None
        # One that the router opened for us, beside those that observers see.
        self.mapped_port = 0
        self._reports: dict[str, tuple[core.Report, float]] = {}
        self._relays: dict[str, tuple[str, float]] = {}
        self._not_before: dict[str, float] = {}
        self._dials = trio.CapacityLimiter(DIALS_MAX)
        self.through = Through(host, dialer, key, self)

    @property
    def port(self) -> int:
        return self._port

    def addresses(self) -> tuple[str, ...]:
        """Where we are reached from outside: mapped ports, then relays."""
        mapped = [core.address_of(*each) for each in self.verdict.endpoints] if self.verdict.reachable else []
        relayed = [f"{address}{core.CIRCUIT}" for address, _ in self._relays.values()]
        return tuple(f"{each}/p2p/{self._key.peer}" for each in (*mapped, *relayed))

    def relays(self) -> tuple[str, ...]:
        """Peers that pass on to us what others ask of us."""
        return tuple(self._relays)

    def map(self, port: int) -> None:
        """The router passes on this port of its own, from now on: 0 for none. Observers are asked anew."""
        if port != self.mapped_port:
            self.mapped_port = port
            self._reports.clear()

    def forget(self) -> None:
        """Our own addresses changed: nothing that was found out holds."""
        self._reports.clear()
        self._relays.clear()
        self._not_before.clear()
        self.verdict = core.Verdict()

    async def report(self, question: AskReach) -> ReachReport:
        """What `potluck doctor` says of it."""
        peers = self._dialer.peers()
        return ReachReport(
            question.question,
            self.verdict.kind,
            self.verdict.endpoints,
            self.verdict.observers,
            len(self._relays),
            self._port,
            len(peers),
            sum(self._dialer.is_relayed(peer) for peer in peers),
            await upload.measure(self._dialer) if question.measure else None,
        )

    async def serve(self) -> None:
        """Keep `verdict` and the relays up to date, until cancelled."""
        while self._port:
            try:
                await self._look()
            except* Exception as failed:
                # Whatever peers make go wrong here may not end the host, and with it all that is connected.
                log.exception("looking at how others see this node failed", exc_info=failed)
            await trio.sleep(LOOK_S)

    async def _look(self) -> None:
        if await self._observe_all() | await self._keep_relays():
            log.info("others see this node as %s, through %d relays", self.verdict.kind, len(self._relays))
            self.changed()

    # How we look

    async def _observe_all(self) -> bool:
        """Ask who was not asked of late; whether that changed anything."""
        now = trio.current_time()
        self._reports = {peer: found for peer, found in self._reports.items() if found[1] > now - REPORT_LIFE_S}
        candidates = self._dialled()
        room = OBSERVERS_MAX - sum(peer in self._reports for peer in candidates)
        due = [each for each in candidates if each not in self._reports and self._not_before.get(each, 0) <= now]
        async with trio.open_nursery() as nursery:
            for peer in due[: max(0, room)]:
                nursery.start_soon(self._observe, peer, now)
        self._not_before = {key: until for key, until in self._not_before.items() if until > now}
        if not self._reports:
            return False  # nobody to ask, for now; what was found out holds as long as we do not move
        verdict = core.judge([report for report, _ in self._reports.values()], self._own_hosts())
        changed, self.verdict = verdict != self.verdict, verdict
        return changed

    async def _observe(self, peer: str, now: float) -> None:
        try:
            self._reports[peer] = await self._report(peer), now
        except TransportError as error:
            self._not_before[peer] = now + AGAIN_S
            log.info("%s does not say how we look: %s", peer, error)

    def _dialled(self) -> list[str]:
        """Peers that others can dial, too, since we did: those on the internet, if there are any."""
        found = {peer: at[0] for peer in self._dialer.peers() if (at := self._dialer.dialled_at(peer))}
        return [peer for peer, host in found.items() if core.is_global(host)] or list(found)

    def _place(self, peer: str) -> tuple[str, int]:
        """Where we dialled a peer. Raises `PeerUnreachableError`."""
        found = self._dialer.dialled_at(peer)
        if found is None:
            raise PeerUnreachableError(f"{peer} is gone, or we did not dial it")
        return found

    def _own_hosts(self) -> set[str]:
        return {str(address).split("/")[2] for address in self._host.get_addrs()}

    async def _report(self, peer: str) -> core.Report:
        """Raises `TransportError`."""
        async with self.observing(peer, self._port) as seen:
            pass
        asked = tuple(dict.fromkeys(filter(None, (self.mapped_port, seen.port, self._port))))[:DIAL_BACK_PORTS_MAX]
        with self.probes.expect() as (nonce, awaited):
            async with talk.asking(self._dialer, peer) as stream:
                answer = await talk.ask(stream, messages.DialBack(asked, nonce), messages.DialledBack)
            # What came in is our own evidence; the answer only says at which of the ports.
            found = tuple(each for each in answer.ports if each in asked) if awaited.came else ()
        return core.Report(peer, seen.host, seen.port, found)

    @asynccontextmanager
    async def observing(self, peer: str, port: int = 0) -> AsyncIterator[Seen]:
        """Where the peer sees a connection from one of our ports, a new one unless given. It stays open for the block,
        and keeps the way open. Raises `TransportError`."""
        async with talk.asking(self._dialer, peer) as stream:
            ticket = await talk.ask(stream, messages.Observe(), messages.Ticket)
            with trio.fail_after(ports.PROBE_TIMEOUT_S):
                probe = await ports.send_probe(*self._place(peer), ticket.nonce, port)
            try:
                found = await talk.hear(stream, messages.Observed)
            except BaseException:
                await trio.aclose_forcefully(probe)
                raise
        try:
            yield Seen(found.host, found.port, probe.socket.getsockname()[1])
        finally:
            await trio.aclose_forcefully(probe)

    # Relays of ours

    async def _keep_relays(self) -> bool:
        """Whether there are others than before."""
        before = {peer: address for peer, (address, _) in self._relays.items()}
        now, dialled = trio.current_time(), self._dialled()
        for peer in list(self._relays):
            if peer not in dialled or self.verdict.reachable:
                del self._relays[peer]
        for peer in dialled if self.verdict.hidden else ():
            _, until = self._relays.get(peer, ("", now))
            is_due = peer in self._relays or len(self._relays) < RELAYS_MAX
            if is_due and until < now + RESERVATION_S / 2 and self._not_before.get(f"relay {peer}", 0) <= now:
                await self._reserve(peer, now)
        return before != {peer: address for peer, (address, _) in self._relays.items()}

    async def _reserve(self, peer: str, now: float) -> None:
        try:
            async with talk.asking(self._dialer, peer) as stream:
                answer = await talk.ask(stream, messages.Reserve(), messages.Reserved)
            self._relays[peer] = (
                f"{core.address_of(*self._place(peer))}/p2p/{peer}",
                now + min(answer.lasts_s, RESERVATION_S),
            )
        except TransportError as error:
            self._relays.pop(peer, None)
            self._not_before[f"relay {peer}"] = now + AGAIN_S
            log.info("%s does not relay for us: %s", peer, error)

    # What others ask

    async def answer(self, stream: FramedStream) -> None:
        """Serve one stream of `REACH_PROTOCOL`."""
        why = ""
        try:
            with trio.fail_after(talk.ANSWER_TIMEOUT_S):
                question = wire.decode(await stream.receive(), messages.Question)
            if self.desk.hurried(stream.peer, trio.current_time()):
                raise PeerUnreachableError("you ask too often")
            await self._answer(stream, question)
        except (TransportError, RemoteProtocolError) as error:
            why = str(error)
        except trio.TooSlowError:
            why = "that took too long"
        if why:
            log.info("%s is refused: %s", stream.peer, why)
            with suppress(TransportError):
                await stream.send(wire.encode(messages.ReachRefused(why[:200])))

    async def _answer(self, stream: FramedStream, question: messages.Question) -> None:
        match question:
            case messages.Observe():
                await self._see(stream)
            case messages.DialBack():
                await stream.send(wire.encode(await self._dial_back(stream.peer, question)))
            case messages.Reserve():
                why = self.desk.reserve(stream.peer, trio.current_time())
                if why:
                    raise PeerUnreachableError(why)
                await stream.send(wire.encode(messages.Reserved(int(RESERVATION_S))))
            case messages.Swallow():
                await stream.send(wire.encode(await upload.swallow(stream)))
            case _:
                await self.through.answer(stream, question)

    async def _see(self, stream: Stream) -> None:
        with self.probes.expect() as (nonce, awaited):
            await stream.send(wire.encode(messages.Ticket(nonce)))
            with trio.fail_after(ports.PROBE_TIMEOUT_S):
                await awaited.event.wait()
        host, port, _ = awaited.came[0]
        await stream.send(wire.encode(messages.Observed(host, port)))

    async def _dial_back(self, peer: str, question: messages.DialBack) -> messages.DialledBack:
        """Only the very address from which the peer is connected: so nobody makes us dial into our own network, but who
        is in it. Raises `PeerUnreachableError`."""
        host = self._dialer.remote_host(peer)
        if host is not None and ipaddress.ip_address(host.partition("%")[0]).is_loopback:
            # Perhaps a proxy of our own, behind which anybody may be.
            host = None
        if host is None or len(question.nonce) != messages.NONCE_BYTES:
            raise PeerUnreachableError("you have no address that could be dialled")
        found: list[int] = []

        async def dial(port: int) -> None:
            with suppress(OSError), trio.move_on_after(DIAL_BACK_S):
                await (await ports.send_probe(host, port, question.nonce)).aclose()
                found.append(port)

        async with self._dials, trio.open_nursery() as nursery:
            for port in question.ports[:DIAL_BACK_PORTS_MAX]:
                if core.PORT_MIN <= port <= 65535:
                    nursery.start_soon(dial, port)
        return messages.DialledBack(host, tuple(found))
