"""Streams between simulated nodes: latency, order, and the ways in which a peer's end is noticed.

Heartbeats are not sent as events: what matters of them is when a silent peer is given up, and that is planned when it
falls silent. A read loop checks once a heartbeat, so it takes between three and four seconds.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from potluck import wire
from potluck.wire.lease import DEAD_AFTER_US, HEARTBEAT_US
from potluck_netsim.faults import Faults
from potluck_netsim.gossip import Gossip
from potluck_netsim.sites import Site, one_way_us
from potluck_netsim.world import Do, World
from potluck_node.core.offers import OFFER_LIFE_MAX_US
from potluck_node.transport.interface import CONNECT_TIMEOUT_S

CONNECT_TIMEOUT_US = int(CONNECT_TIMEOUT_S * 1e6)
SILENT = f"the peer fell silent for {DEAD_AFTER_US / 1e6:g} s"
RESET = "the connection ended"
# A lost packet is sent again after this and a round trip. (RFC 6298: at least a second; Linux: 200 ms.)
RESEND_US = 200_000
# What a message without a payload is on the wire: frames, encryption and headers of one packet. Bytes.
SMALL = 200
# A cut matters to gossip that is caught up with, as long as an offer lives.
KEPT_US = OFFER_LIFE_MAX_US


class Host(Protocol):
    """What the network needs of a node. `life` counts its lives; `unplugged` is how it died, if it is dead."""

    name: str
    peer: str
    number: int
    site: Site
    life: int
    born_us: int
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
    # The relay between two of whom neither can be dialled.
    via: Host | None = None

    @property
    def peer(self) -> str:
        """Who is at the other end."""
        assert self.other
        return self.other.host.peer

    def post(self, message: wire.Message) -> None:
        if not self.closed and not self.finished:
            data = wire.encode(message)
            self.network.carry(self, partial(_take, self.other, data), len(data))

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


@dataclass(frozen=True)
class Cut:
    """Between some peers and all others, from a time to another; one way: only what those send is lost."""

    side: frozenset[str]
    one_way: bool
    from_us: int
    until_us: int

    def blocks(self, one: str, other: str, at_us: int) -> bool:
        if not self.from_us <= at_us < self.until_us:
            return False
        crosses = (one in self.side) != (other in self.side)
        return crosses and (one in self.side or not self.one_way)


@dataclass
class Network:
    world: World
    faults: Faults
    signed: bool = True
    hosts: dict[str, Host] = field(default_factory=dict)
    cuts: list[Cut] = field(default_factory=list)
    carried: int = 0
    _latencies: dict[tuple[str, str], int] = field(default_factory=dict)
    _ends: dict[str, dict[int, End]] = field(default_factory=dict)
    # Until when a line is busy, by peer and direction.
    _busy_us: dict[tuple[str, bool], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        faults = self.faults
        self.gossip = Gossip(
            self.world.seed, self, faults.gossip_lost_milli, faults.gossip_doubled_milli, signed=self.signed
        )

    def add(self, host: Host) -> None:
        self.hosts[host.peer] = host
        self.world.names[host.peer] = host.name

    def base_us(self, one: str, other: str) -> int:
        """One way, of a message between two; without cities, each pair draws its own at their first meeting."""
        ours, theirs = self.hosts[one].site, self.hosts[other].site
        if ours.city >= 0 and theirs.city >= 0:
            return one_way_us(ours, theirs)
        pair = (one, other) if one < other else (other, one)
        if pair not in self._latencies:
            low, high = self.faults.latency_min_us, self.faults.latency_max_us
            # Squared: most pairs are near each other, a few far apart.
            drawn = random.Random(f"{self.world.seed} {pair}").random()
            self._latencies[pair] = int(low + (high - low) * drawn**2)
        return self._latencies[pair]

    def latency_us(self, one: str, other: str) -> int:
        """Of one message, with a fifth of jitter; more where a packet is lost."""
        base = self.base_us(one, other)
        lost = self.faults.packet_lost_milli and self.world.chance(self.faults.packet_lost_milli)
        return base + self.world.dice.randrange(base // 5 + 1) + (RESEND_US + 2 * base if lost else 0)

    @property
    def whole(self) -> bool:
        return not self.cuts

    def blocked(self, one: str, other: str, at_us: int) -> int:
        """Until when nothing passes from one to the other; 0 when it does."""
        if not self.cuts:
            return 0
        return max((cut.until_us for cut in self.cuts if cut.blocks(one, other, at_us)), default=0)

    def free_us(self, peer: str) -> int:
        """When a node's uplink has carried all that it was given so far."""
        return self._busy_us.get((peer, True), 0)

    def _line_us(self, peer: str, up: bool, size: int) -> int:
        """When a line has carried a message that is sent now: after all others that came before it."""
        line = self.hosts[peer].site.line
        rate = line.up if up else line.down
        if not rate:
            return self.world.now_us
        busy_us = max(self._busy_us.get((peer, up), 0), self.world.now_us) + size * 1_000_000 // rate
        self._busy_us[peer, up] = busy_us
        return busy_us

    def _arrival_us(self, end: End, other: Host, size: int) -> int:
        """When a message arrives that is sent now; after what blocks it, and through the relay, if there is one."""
        host, self.carried = end.host, self.carried + size
        hops = [host.peer, end.via.peer, other.peer] if end.via else [host.peer, other.peer]
        # Both ends of a line are taken from now on, not from when the first byte arrives: so that what comes from afar
        # does not hold up what comes from nearby.
        sent_us, on_the_way_us = self.blocked(host.peer, other.peer, self.world.now_us), 0
        for one, two in itertools.pairwise(hops):
            sent_us = max(sent_us, self._line_us(one, True, size), self._line_us(two, False, size))
            on_the_way_us += self.latency_us(one, two)
        return sent_us + on_the_way_us

    def cut(self, side: frozenset[str], for_us: int, *, one_way: bool) -> None:
        """From now on, nothing passes; who hears nothing for long enough gives the other up."""
        now_us = self.world.now_us
        cut = Cut(side, one_way, now_us, now_us + for_us)
        self.cuts = [each for each in self.cuts if each.until_us > now_us - KEPT_US] + [cut]
        for ends in list(self._ends.values()):
            for end in list(ends.values()):
                if end.other and cut.blocks(end.host.peer, end.other.host.peer, now_us):
                    self._fall_silent(end, SILENT, cut.until_us)

    def heal(self) -> None:
        """What is cut is cut no more; what was sent meanwhile still takes its time."""
        now_us = self.world.now_us
        self.cuts = [replace(cut, until_us=min(cut.until_us, now_us)) for cut in self.cuts]

    # Streams

    def open(self, host: Host, peer: str, kinds: tuple[Any, Any], opened: Callable[[End], None]) -> End:
        """Dial `peer`. `kinds` are the messages taken by us and by the other side; `on_end` tells of failure."""
        ours, target = End(self, host, host.life, kinds[0]), self.hosts[peer]
        theirs = End(self, target, -1, kinds[1], other=ours)
        ours.other = theirs
        self._keep(ours)
        ours.via = theirs.via = self._relay(host, target)
        there_us = self._arrival_us(ours, target, SMALL) + self._punching_us(host, target)
        self.world.at(there_us, partial(self._dialled, theirs, partial(self._answered, ours, opened)))
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

    def _relay(self, host: Host, target: Host) -> Host | None:
        """Whom two need between them, since neither can be dialled and no hole can be punched."""
        nats = {host.site.nat, target.site.nat}
        if "open" in nats or "closed" not in nats or host is target:
            return None
        relays = [each for each in self.hosts.values() if each.alive and each.site.nat == "open"]
        return relays[self.world.dice.randrange(len(relays))] if relays else None

    def _punching_us(self, host: Host, target: Host) -> int:
        """Two round trips more through a relay, before a hole is punched. (libp2p's DCUtR.)"""
        nats = {host.site.nat, target.site.nat}
        return 4 * self.base_us(host.peer, target.peer) if nats == {"punchable"} else 0

    def carry(self, end: End, do: Do, size: int = SMALL) -> None:
        """Let something happen at the other end, after all that was sent before it."""
        other = end.other
        assert other
        end.arrives_us = max(end.arrives_us, self._arrival_us(end, other.host, size))
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
        for ends in list(self._ends.values()) if host.site.nat == "open" else ():
            for end in [each for each in ends.values() if each.via is host]:
                end.host.in_life(end.life, partial(end.end, "the relay is gone"))

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

    def part(self, host: Host, peer: str) -> None:
        """End all that a node has with a peer."""
        for end in list(self._ends.get(host.peer, {}).values()):
            if end.other and end.other.host.peer == peer:
                self._hang_up(end, "nothing is done with it any more")

    # Single messages

    def reach(self, host: Host, peer: str, do: Do) -> None:
        """Let something happen at a peer that is there when it arrives."""
        other, now_us = self.hosts[peer], self.world.now_us
        sent_us = max(now_us, self.blocked(host.peer, peer, now_us))
        self.world.at(sent_us + self.latency_us(host.peer, peer), lambda: other.in_life(other.life, do))
