"""Offers in a mesh of a thousand: who hears of a warm worker, how soon, and who asks one that is not there any more.

Gossip is not simulated message by message. A node hears an offer over the quickest way through neighbours that hand it
on, which is what gossipsub's flood comes to (gossipsub v1.1, eager push to the neighbours of a topic's mesh); ways are
found anew as nodes come and go. The book, the bans and placement are the node's own. A few nodes watch, for all.
"""

from __future__ import annotations

import functools
import heapq
import statistics
from dataclasses import dataclass, field
from functools import partial

from potluck.wire import FunctionSpec, Resources
from potluck.wire.offer import Offer
from potluck_ledger.keys import PrivateKey
from potluck_netsim.world import START_US, World
from potluck_node.core.bans import Bans
from potluck_node.core.offers import OFFER_REPEAT_US, OfferBook, read_offer, repeat_us, sign_offer
from potluck_node.core.placement import Candidate, choose
from potluck_node.core.reputation import Reputation
from potluck_node.discovery import SETTLE_S
from potluck_node.transport.interface import CONNECT_TIMEOUT_S

MESH, FUNCTION = "open", "f"
SPEC = FunctionSpec("sim", FUNCTION, "00" * 32, "3.11", resources=Resources(cpu_milli=1000, memory_mib=512))
SECOND_US = 1_000_000
# How long ways through the mesh count as they are, and what a node needs to check an offer and hand it on.
WAYS_US, RELAY_US = 2 * SECOND_US, 2_000
# What a node that comes finds in the DHT (`Discovery._search`).
FOUND = 20
# A lookup that has not found a peer by then has failed: so long a caller waits without asking why.
LOOKUP_US = 10 * SECOND_US
# A peer that is there and says no.
REFUSED_US = 100_000

_read = functools.lru_cache(maxsize=4096)(read_offer)


@dataclass(frozen=True)
class Mesh:
    """Times are means. `warm_milli` of the nodes have a warm worker for the function at any time."""

    seed: int = 1
    nodes: int = 1000
    minutes: float = 20.0
    watchers: int = 10
    degree: int = 6
    session_us: int = 20 * 60 * SECOND_US
    away_us: int = 2 * 60 * SECOND_US
    silent_milli: int = 500  # of those that leave: without a word
    warm_milli: int = 100
    warm_us: int = 120 * SECOND_US  # how long a worker stays warm
    hostile_milli: int = 0  # hand nothing on, and serve nobody
    lying_milli: int = 100  # of the hostile: say that they are warm, always
    latency_min_us: int = 1_000
    latency_max_us: int = 150_000
    lookup_us: int = 2 * SECOND_US  # between two lookups of a watcher


@dataclass
class Found:
    """What came of it, in milliseconds and shares of one."""

    lookups: int = 0
    served: int = 0
    first: int = 0
    expired: int = 0
    tries: int = 0
    heard_ms: list[float] = field(default_factory=list)
    cold_ms: list[float] = field(default_factory=list)
    missed: int = 0

    def figures(self) -> dict[str, float | int]:
        return {
            "lookups": self.lookups,
            "success": round(self.served / max(1, self.lookups), 5),
            "first_try": round(self.first / max(1, self.lookups), 5),
            "tries_mean": round(self.tries / max(1, self.lookups), 2),
            "used_after_expiry": self.expired,
            "published_p50_ms": round(statistics.median(self.heard_ms), 1),
            "published_p95_ms": round(statistics.quantiles(self.heard_ms, n=20)[18], 1),
            "cold_seen_p99_ms": round(statistics.quantiles(self.cold_ms, n=100)[98], 1),
        }


@dataclass(eq=False)
class _Peer:
    number: int
    key: PrivateKey
    hostile: bool
    alive: bool = True
    warm: bool = False
    sequence: int = 0
    telling: int = 0
    record: bytes = b""
    near: dict[int, int] = field(default_factory=dict)
    # Of watchers.
    book: OfferBook | None = None
    bans: Bans = field(default_factory=Bans)
    reputation: Reputation = field(default_factory=Reputation)
    ways: dict[int, int] = field(default_factory=dict)
    ways_us: int = -WAYS_US


def _offer(peer: _Peer, now_us: int, life_us: int) -> Offer:
    return Offer(
        peer=peer.key.peer,
        name="n",
        mesh=MESH,
        sequence=peer.sequence,
        issued_us=now_us,
        expires_us=now_us + life_us,
        cpu_milli=8000,
        cpu_free_milli=8000,
        memory_mib=8192,
        memory_free_mib=8192,
        slots_free=8,
        warm=(FUNCTION,) if peer.warm else (),
    )


class OfferWorld:
    """Runs one mesh; the first nodes are the watchers, and they are honest."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh, self.world, self.found = mesh, World(mesh.seed), Found()
        dice = self.world.dice
        self.peers = [self._peer(number) for number in range(mesh.nodes)]
        self._by_id = {peer.key.peer: peer for peer in self.peers}
        self.ends_us = START_US + int(mesh.minutes * 60 * SECOND_US)
        for peer in self.peers:
            self._join(peer)
            # Nodes of a mesh that has been there for a while.
            self.world.after(dice.randrange(repeat_us(mesh.nodes)), partial(self._tell, peer, peer.telling))
        for peer in self.peers[: mesh.watchers]:
            self._find(peer)
            self.world.after(dice.randrange(mesh.lookup_us), partial(self._look, peer))

    def run(self) -> Found:
        self.world.run(self.ends_us)
        return self.found

    def _peer(self, number: int) -> _Peer:
        key = PrivateKey(self.world.dice.randbytes(32))
        watches = number < self.mesh.watchers
        peer = _Peer(number, key, not watches and self.world.chance(self.mesh.hostile_milli))
        peer.book = OfferBook(MESH, key.peer) if watches else None
        return peer

    # Coming and going

    def _join(self, peer: _Peer) -> None:
        """Have neighbours, be warm or not, and leave some time."""
        dice, mesh = self.world.dice, self.mesh
        peer.alive = True
        while len(peer.near) < mesh.degree:
            other = self.peers[dice.randrange(mesh.nodes)]
            if other is not peer and other.alive:
                delay_us = int(mesh.latency_min_us + (mesh.latency_max_us - mesh.latency_min_us) * dice.random() ** 2)
                peer.near[other.number] = other.near[peer.number] = delay_us + RELAY_US
        peer.warm = self.world.chance(mesh.lying_milli if peer.hostile else mesh.warm_milli)
        self._plan_change(peer)
        if peer.number >= mesh.watchers:
            self.world.after(self.world.around(mesh.session_us), partial(self._leave, peer))

    def _leave(self, peer: _Peer) -> None:
        if not self.world.chance(self.mesh.silent_milli) and peer.warm and not peer.hostile:
            self._change(peer, False)
        self.world.after(int(SETTLE_S * SECOND_US) + 1, partial(self._gone, peer))

    def _gone(self, peer: _Peer) -> None:
        peer.alive, peer.telling = False, peer.telling + 1
        for number in peer.near:
            other = self.peers[number]
            other.near.pop(peer.number, None)
            # Gossipsub grafts another in its next heartbeat.
            self.world.after(SECOND_US, partial(self._graft, other))
        peer.near.clear()
        self.world.after(self.world.around(self.mesh.away_us), partial(self._back, peer))

    def _graft(self, peer: _Peer) -> None:
        if peer.alive and len(peer.near) < self.mesh.degree:
            other = self.peers[self.world.dice.randrange(self.mesh.nodes)]
            if other.alive and other is not peer:
                peer.near[other.number] = other.near[peer.number] = self.mesh.latency_max_us // 4 + RELAY_US

    def _back(self, peer: _Peer) -> None:
        self._join(peer)
        self._tell(peer, peer.telling)

    # Warm and cold

    def _plan_change(self, peer: _Peer) -> None:
        if not peer.hostile:
            share = self.mesh.warm_milli / 1000
            mean_us = self.mesh.warm_us if peer.warm else self.mesh.warm_us * (1 - share) / share
            self.world.after(self.world.around(mean_us), partial(self._changes, peer, peer.telling, peer.warm))

    def _changes(self, peer: _Peer, _telling: int, was: bool) -> None:
        if peer.alive and peer.warm == was:
            self._change(peer, not was)
            self._plan_change(peer)

    def _change(self, peer: _Peer, warm: bool) -> None:
        peer.warm, peer.telling = warm, peer.telling + 1
        self.world.after(int(SETTLE_S * SECOND_US), partial(self._tell, peer, peer.telling, self.world.now_us))

    # Telling and hearing

    def _tell(self, peer: _Peer, telling: int, changed_us: int = 0) -> None:
        if not peer.alive or telling != peer.telling:
            return
        peer.telling += 1
        now_us, every_us = self.world.now_us, repeat_us(self.mesh.nodes)
        peer.sequence = max(peer.sequence + 1, now_us)
        data = sign_offer(peer.key, _offer(peer, now_us, 4 * every_us))
        peer.record = data
        for watcher in self.peers[: self.mesh.watchers]:
            delay_us = self._way_us(watcher, peer)
            if delay_us is None:
                self.found.missed += watcher is not peer
            elif watcher is not peer:
                self.world.after(delay_us, partial(self._hear, watcher, peer, data, changed_us))
        self.world.after(every_us, partial(self._tell, peer, peer.telling))

    def _hear(self, watcher: _Peer, peer: _Peer, data: bytes, changed_us: int) -> None:
        assert watcher.book
        offer = _read(data)
        if watcher.book.add(offer, self.world.now_us) is None and changed_us and not peer.hostile:
            taken = self.found.heard_ms if offer.warm else self.found.cold_ms
            taken.append((self.world.now_us - changed_us) / 1000)

    def _find(self, watcher: _Peer) -> None:
        """What the DHT has: the mesh's provider records, and the record of each."""
        assert watcher.book
        for peer in self.world.dice.sample(self.peers, min(FOUND, len(self.peers))):
            if peer.record and peer is not watcher:
                watcher.book.add(_read(peer.record), self.world.now_us)

    def _way_us(self, watcher: _Peer, peer: _Peer) -> int | None:
        """Of the quickest way to the watcher, None when there is none. (Dijkstra 1959.)"""
        if self.world.now_us - watcher.ways_us >= WAYS_US:
            watcher.ways, watcher.ways_us = self._ways(watcher), self.world.now_us
        return watcher.ways.get(peer.number)

    def _ways(self, watcher: _Peer) -> dict[int, int]:
        ways: dict[int, int] = {}
        edge = [(0, watcher.number)]
        while edge:
            delay_us, number = heapq.heappop(edge)
            if number in ways:
                continue
            ways[number] = delay_us
            peer = self.peers[number]
            # A hostile node tells its own, and hands nothing on.
            for other, hop_us in () if peer.hostile else peer.near.items():
                if other not in ways:
                    heapq.heappush(edge, (delay_us + hop_us, other))
        return ways

    # Looking for a warm peer

    def _look(self, watcher: _Peer) -> None:
        self.world.after(self.world.around(self.mesh.lookup_us), partial(self._look, watcher))
        # Not before everybody was heard once, as in a mesh that has been there for a while.
        if self.world.now_us > START_US + 2 * repeat_us(self.mesh.nodes) + OFFER_REPEAT_US:
            self.found.lookups += 1
            self._try(watcher, self.world.now_us)

    def _try(self, watcher: _Peer, since_us: int) -> None:
        assert watcher.book
        now_us = self.world.now_us
        if now_us - since_us > LOOKUP_US:
            return
        offers = watcher.book.fresh(now_us)
        candidates = [
            Candidate(
                each,
                banned=watcher.bans.left_us(each.peer, now_us) > 0,
                doubt=watcher.reputation.doubt(each.peer, now_us),
            )
            for each in offers
        ]
        chosen = choose(candidates, FUNCTION, SPEC, self.world.dice)
        if chosen is None:
            return
        self.found.tries += 1
        peer = self._by_id[chosen.offer.peer]
        self.found.expired += chosen.offer.expires_us <= now_us
        if peer.alive and peer.warm and not peer.hostile:
            watcher.bans.forgive(chosen.offer.peer)
            watcher.reputation.billed(chosen.offer.peer, True, now_us)
            self.found.served += 1
            self.found.first += now_us == since_us
            return
        watcher.bans.strike(chosen.offer.peer, now_us)
        wait_us = REFUSED_US if peer.alive else int(CONNECT_TIMEOUT_S * SECOND_US)
        self.world.after(wait_us, partial(self._try, watcher, since_us))


def run(mesh: Mesh) -> dict[str, float | int]:
    """The figures of one mesh."""
    return OfferWorld(mesh).run().figures()
