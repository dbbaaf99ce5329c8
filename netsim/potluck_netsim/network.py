"""Streams between simulated nodes: latency, order, and the ways in which a peer's end is noticed.

Heartbeats are not sent as events: what matters of them is when a silent peer is given up, and that is planned when it
falls silent. A read loop checks once a heartbeat, so it takes between three and four seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from potluck import wire
from potluck.wire.lease import DEAD_AFTER_US, HEARTBEAT_US
from potluck_netsim.faults import Faults
from potluck_netsim.world import Do, World
from potluck_node.transport.interface import CONNECT_TIMEOUT_S

CONNECT_TIMEOUT_US = int(CONNECT_TIMEOUT_S * 1e6)
SILENT = f"the peer fell silent for {DEAD_AFTER_US / 1e6:g} s"
RESET = "the connection ended"


class Host(Protocol):
    """What the network needs of a node. `life` counts its lives; `unplugged` is how it died, if it is dead."""

    name: str
    peer: str
    life: int
    alive: bool
    unplugged: bool
    frozen_until_us: int

    def later(self, delay_us: int, do: Do) -> None: ...

    def in_life(self, life: int, do: Do) -> None:
        """Do something now, unless that life is over; a frozen node does it when it thaws."""
        ...

    def accept(self, end: End) -> None:
        """A peer opened a stream: set its `on_message` and `on_end`."""
        ...

    def gossiped(self, data: bytes) -> None: ...


def _unheard(_message: Any) -> None:
    """Where messages go before somebody listens."""


@dataclass(eq=False)
class End:
    """One end of a stream; a `potluck_node.link.Link`. `on_end` is called once, with the reason."""

    network: Network
    host: Host
    life: int
    kind: Any
    on_message: Callable[[Any], None] = _unheard
    on_end: Callable[[str], None] = _unheard
    other: End | None = None
    opened: bool = False
    closed: bool = False
    finished: bool = False
    arrives_us: int = 0

    @property
    def peer(self) -> str:
        """Who is at the other end."""
        assert self.other
        return self.other.host.peer

    def post(self, message: wire.Message) -> None:
        if not self.closed and not self.finished:
            self.network.carry(self, partial(_take, self.other, wire.encode(message)))

    def finish(self) -> None:
        """End after what was posted; the other side learns of it last."""
        if not self.closed and not self.finished:
            self.finished = True
            self.network.carry(self, partial(_end, self.other, RESET))
            self.host.later(0, partial(self.end, ""))

    def end(self, why: str) -> None:
        if not self.closed:
            self.closed = True
            self.network.forget(self)
            self.on_end(why)


def _take(end: End | None, data: bytes) -> None:
    if end and not end.closed:
        end.on_message(wire.decode(data, end.kind))


def _end(end: End | None, why: str) -> None:
    if end:
        end.end(why)


@dataclass
class Network:
    world: World
    faults: Faults
    hosts: dict[str, Host] = field(default_factory=dict)
    _latencies: dict[tuple[str, str], int] = field(default_factory=dict)
    _ends: dict[str, dict[int, End]] = field(default_factory=dict)

    def add(self, host: Host) -> None:
        self.hosts[host.peer] = host

    def latency_us(self, one: str, two: str) -> int:
        """Of one message: each pair has its own, drawn at their first meeting, with a fifth of jitter."""
        pair = (min(one, two), max(one, two))
        if pair not in self._latencies:
            low, high = self.faults.latency_min_us, self.faults.latency_max_us
            # Squared: most pairs are near each other, a few far apart.
            self._latencies[pair] = int(low + (high - low) * self.world.dice.random() ** 2)
        base = self._latencies[pair]
        return base + self.world.dice.randrange(base // 5 + 1)

    # Streams

    def open(self, host: Host, peer: str, kinds: tuple[Any, Any], opened: Callable[[End], None]) -> End:
        """Dial `peer`. `kinds` are the messages taken by us and by the other side; `on_end` tells of failure."""
        ours, target = End(self, host, host.life, kinds[0]), self.hosts[peer]
        theirs = End(self, target, -1, kinds[1], other=ours)
        ours.other = theirs
        self._keep(ours)
        there_us = self.latency_us(host.peer, peer)
        self.world.after(there_us, partial(self._dialled, theirs, partial(self._answered, ours, opened)))
        host.later(CONNECT_TIMEOUT_US, partial(self._too_late, ours))
        return ours

    def _dialled(self, theirs: End, answered: Do) -> None:
        host = theirs.host
        if host.alive:
            host.in_life(host.life, partial(self._accept, theirs, answered))
        elif not host.unplugged:
            self.carry(theirs, partial(_end, theirs.other, "connection refused"))

    def _accept(self, theirs: End, answered: Do) -> None:
        if theirs.other and theirs.other.closed:
            return
        theirs.life = theirs.host.life
        self._keep(theirs)
        theirs.host.accept(theirs)
        self.carry(theirs, answered)

    def _answered(self, ours: End, opened: Callable[[End], None]) -> None:
        if not ours.closed:
            ours.opened = True
            opened(ours)

    def _too_late(self, ours: End) -> None:
        if not ours.opened:
            ours.end(f"no answer within {CONNECT_TIMEOUT_S:g} s")
            # An end that is accepted only now finds nobody there.
            self.carry(ours, partial(_end, ours.other, RESET))

    def carry(self, end: End, do: Do) -> None:
        """Let something happen at the other end, after all that was sent before it."""
        other = end.other
        assert other
        end.arrives_us = max(end.arrives_us, self.world.now_us + self.latency_us(end.host.peer, other.host.peer))
        self.world.at(end.arrives_us, partial(self._arrive, other, do))

    def _arrive(self, end: End, do: Do) -> None:
        end.host.in_life(end.life, do)

    def _keep(self, end: End) -> None:
        self._ends.setdefault(end.host.peer, {})[id(end)] = end

    def forget(self, end: End) -> None:
        self._ends.get(end.host.peer, {}).pop(id(end), None)

    # Deaths and silence

    def died(self, host: Host) -> None:
        """Called with the node already dead: a machine that still runs resets its connections, an unplugged one not."""
        for end in list(self._ends.pop(host.peer, {}).values()):
            end.closed = True
            if host.unplugged:
                self._fall_silent(end, SILENT)
            else:
                self.carry(end, partial(_end, end.other, RESET))

    def froze(self, host: Host) -> None:
        """Called with the node already frozen: whoever waits long enough gives it up."""
        for end in list(self._ends.get(host.peer, {}).values()):
            self._fall_silent(end, SILENT, host.frozen_until_us)

    def _fall_silent(self, end: End, why: str, until_us: int | None = None) -> None:
        noticed_us = self.world.now_us + DEAD_AFTER_US + self.world.dice.randrange(HEARTBEAT_US)
        if end.other and (until_us is None or noticed_us < until_us):
            self.world.at(noticed_us, partial(self._give_up, end.other, why))

    def _give_up(self, end: End, why: str) -> None:
        end.host.in_life(end.life, partial(self._hang_up, end, why))

    def _hang_up(self, end: End, why: str) -> None:
        if not end.closed:
            self.carry(end, partial(_end, end.other, RESET))
            end.end(why)

    # Gossip

    def publish(self, host: Host, data: bytes) -> None:
        """To everybody who is there when it arrives; a few never get it."""
        for peer, other in self.hosts.items():
            if peer != host.peer and not self.world.chance(self.faults.gossip_lost_milli):
                self.world.after(self.latency_us(host.peer, peer), partial(_hear, other, data))

    def reach(self, host: Host, peer: str, do: Do) -> None:
        """Let something happen at a peer that is there when it arrives."""
        other = self.hosts[peer]
        self.world.after(self.latency_us(host.peer, peer), lambda: other.in_life(other.life, do))


def _hear(host: Host, data: bytes) -> None:
    if host.alive:
        host.in_life(host.life, partial(host.gossiped, data))
