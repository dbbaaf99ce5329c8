"""How simulated nodes fetch an image from each other: the production core `ChunkSync` decides, and around it is what
`fetch.py` and `chunks.py` of the node do.

A chunk on the wire has its nominal size; what the core is given, and verifies, is a small real frame. A server answers
each of its askers in turn, one chunk each, as parallel connections share an uplink.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import partial

from potluck_images.chunk import CUT_AVERAGE_BYTES, pack
from potluck_images.sync import (
    WINDOW_MAX,
    Action,
    Ask,
    ChunkSync,
    Done,
    Drop,
    Event,
    Missing,
    PeerFailed,
    PeerJoined,
    Received,
    Store,
    Stuck,
    Tick,
    scattered,
)
from potluck_netsim.network import SMALL, End, Network
from potluck_netsim.node import Node
from potluck_netsim.world import Fact
from potluck_node.chunks import SOURCES_MAX, STUCK_TIMEOUT_S, TICK_S
from potluck_node.discovery import SEARCH_FIRST_S
from potluck_node.fetch import SEARCH_S

TICK_US, SEARCH_US, STUCK_US = int(TICK_S * 1e6), int(SEARCH_S * 1e6), int(STUCK_TIMEOUT_S * 1e6)
ANNOUNCE_US = int(SEARCH_FIRST_S * 1e6)
# A lease whose image could not be fetched is tried again.
AGAIN_US = 2_000_000
# So many does the DHT name, others each time (`Transport.find_providers`).
FOUND = 20
JUNK = pack(b"junk").frame


@dataclass(frozen=True, slots=True)
class ChunkCame(Fact):
    """A chunk's bytes reached a node from another (names); `again` says whether it had that chunk already."""

    node: str
    server: str
    digest: bytes
    again: bool


@dataclass(frozen=True, slots=True)
class ChunkKept(Fact):
    """A node puts a chunk into its store that its core took for a right one."""

    node: str
    digest: bytes
    frame: bytes


@dataclass(frozen=True, slots=True)
class ImageWhole(Fact):
    node: str


@dataclass(frozen=True, slots=True)
class ImageLacks(Fact):
    """At the end, a node that is there lacks so many chunks."""

    node: str
    chunks: int


@dataclass
class Picture:
    """An image, and who has (part of) it, as the mesh can know: `announced` are peers in the order in which the DHT
    came to know them, `offered` those that say in their offers that they have all of it."""

    frames: dict[bytes, bytes]
    chunk_bytes: int
    announced: dict[str, None] = field(default_factory=dict)
    offered: dict[str, None] = field(default_factory=dict)

    @property
    def total_bytes(self) -> int:
        return len(self.frames) * self.chunk_bytes


def draw_picture(total_bytes: int, chunk_bytes: int) -> Picture:
    chunks = (pack(b"chunk %d" % number) for number in range(total_bytes // chunk_bytes))
    return Picture({chunk.digest: chunk.frame for chunk in chunks}, chunk_bytes)


class Sharing(Node):
    """A node that has, fetches and serves one image. What it has outlives its deaths."""

    picture: Picture
    # Whether it answers with other bytes than those it was asked for.
    spoils = False

    def __init__(self, *given: object) -> None:
        self.have: dict[bytes, None] = {}
        self.sent_bytes, self.whole_us, self.wants = 0, 0, False
        super().__init__(*given)  # type: ignore[arg-type]

    def be_born(self) -> None:
        super().be_born()
        self.uplink = Uplink(self)
        if self.wants:
            self.fetch()

    def fetch(self) -> None:
        """Have the image, from now on and after each death."""
        self.wants = True
        if self.alive and self.lacks():
            Pull(self)

    def lacks(self) -> int:
        return len(self.picture.frames) - len(self.have)

    def accept(self, end: End) -> None:
        if end.kind is Uplink:
            self.uplink.accept(end)
        else:
            super().accept(end)

    def announce(self) -> None:
        """Stand in the DHT, as who has part of it."""
        self.picture.announced.setdefault(self.peer)

    def offer_whole(self) -> None:
        self.announce()
        self.picture.offered.setdefault(self.peer)
        self.world.fact(ImageWhole(self.name))


class Uplink:
    """What a node sends to its askers."""

    def __init__(self, node: Sharing) -> None:
        self._node, self._pumping = node, False
        self._asked: dict[int, tuple[End, deque[bytes]]] = {}

    def accept(self, end: End) -> None:
        """One asker's stream."""
        self._asked[id(end)] = (end, deque())
        end.on_message = partial(self._take, id(end))
        end.on_end = lambda why: self._asked.pop(id(end), None) and None

    def _take(self, key: int, digests: tuple[bytes, ...]) -> None:
        if key in self._asked:
            self._asked[key][1].extend(digests)
            if not self._pumping:
                self._pump()

    def _pump(self) -> None:
        """Answer the next asker, and again when the line is free."""
        self._pumping = True
        while key := next((key for key, (_, waiting) in self._asked.items() if waiting), 0):
            # Whoever is served goes to the end.
            end, waiting = self._asked[key] = self._asked.pop(key)
            if self._answer(end, waiting.popleft()):
                free_us = self._node.network.free_us(self._node.peer)
                if free_us > self._node.world.now_us:
                    self._node.later(free_us - self._node.world.now_us, self._pump)
                    return
        self._pumping = False

    def _answer(self, end: End, digest: bytes) -> bool:
        """Whether a chunk was sent, rather than word that there is none."""
        node, other = self._node, end.other
        assert other
        if digest not in node.have:
            node.network.carry(end, partial(_hand, other, Missing(node.peer, digest)), SMALL)
            return False
        frame = JUNK if node.spoils else node.picture.frames[digest]
        node.sent_bytes += node.picture.chunk_bytes
        node.network.carry(end, partial(_hand, other, Received(node.peer, digest, frame)), node.picture.chunk_bytes)
        return True


def _hand(end: End, event: Event) -> None:
    if not end.closed:
        end.on_message(event)


class Pull:
    """One attempt of a node's to have the image: a `Puller` and its `_find_more`."""

    def __init__(self, node: Sharing) -> None:
        self._node, self._world = node, node.world
        # As many bytes under way as in the node, whose chunks are smaller.
        self._sync = ChunkSync(max(1, WINDOW_MAX * CUT_AVERAGE_BYTES // node.picture.chunk_bytes))
        self._links: dict[str, End] = {}
        self._known: set[str] = set()
        self._stuck_us = 0
        self._over = False
        picture, have = node.picture, node.have
        lacking = [digest for digest in picture.frames if digest not in have]
        self._do(self._sync.want(scattered(lacking, node.peer.encode())))
        node.later(ANNOUNCE_US, node.announce)
        self._tick()
        self._search()

    def _tick(self) -> None:
        if self._over:
            return
        self._handle(Tick(self._node.now_us))
        if self._stuck_us and self._world.now_us > self._stuck_us + STUCK_US:
            self._end()
            self._node.later(AGAIN_US, self._node.fetch)
        elif not self._over:
            self._node.later(TICK_US, self._tick)

    def _search(self) -> None:
        if not self._over:
            for peer in self._found():
                self._join(peer)
            self._node.later(SEARCH_US, self._search)

    def _found(self) -> list[str]:
        """Whose offers say that they have it, and whom the DHT names."""
        node, picture, now_us = self._node, self._node.picture, self._world.now_us
        heard = [peer for peer in picture.offered if not node.network.blocked(peer, node.peer, now_us)]
        named = [peer for peer in picture.announced if peer != node.peer]
        if len(named) > FOUND:
            named = node.world.dice.sample(named, FOUND)
        return [peer for peer in dict.fromkeys([*heard, *named]) if peer != node.peer]

    def _join(self, peer: str) -> None:
        if peer not in self._known and len(self._known) < SOURCES_MAX:
            self._known.add(peer)
            end = self._node.network.open(self._node, peer, (Pull, Uplink), partial(self._opened, peer))
            end.on_end = lambda why: self._closed(peer)

    def _opened(self, peer: str, end: End) -> None:
        if self._over:
            end.finish()
            return
        end.on_message = partial(self._came, end)
        self._links[peer] = end
        self._handle(PeerJoined(peer))

    def _closed(self, peer: str) -> None:
        self._known.discard(peer)
        if self._links.pop(peer, None) and not self._over:
            self._handle(PeerFailed(peer))

    def _came(self, end: End, event: Event) -> None:
        if isinstance(event, Received):
            node = self._node
            server = node.network.hosts[event.peer].name
            self._world.fact(ChunkCame(node.name, server, event.digest, event.digest in node.have))
        if not self._over:
            self._handle(event)

    def _handle(self, event: Event) -> None:
        self._do(self._sync.handle(event))

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Ask):
                self._stuck_us = 0
                self._ask(action)
            elif isinstance(action, Store):
                self._node.have[action.chunk.digest] = None
                self._world.fact(ChunkKept(self._node.name, action.chunk.digest, action.chunk.frame))
            elif isinstance(action, Drop):
                self._world.tell(self._node.name, f"drops a peer: {action.why}")
                if action.peer in self._links:
                    self._links[action.peer].finish()
            elif isinstance(action, Stuck):
                self._stuck_us = self._world.now_us
            elif isinstance(action, Done):
                self._whole()

    def _ask(self, action: Ask) -> None:
        end = self._links.get(action.peer)
        if end and end.other:
            self._node.network.carry(end, partial(_asked, end.other, action.digests))

    def _whole(self) -> None:
        self._end()
        if self._node.lacks():
            self._node.fetch()
        else:
            self._node.whole_us = self._world.now_us
            self._node.offer_whole()

    def _end(self) -> None:
        self._over = True
        for end in list(self._links.values()):
            end.finish()


def _asked(end: End, digests: tuple[bytes, ...]) -> None:
    if not end.closed:
        end.on_message(digests)


def line_floor_us(network: Network, nodes: list[Sharing], seed: Sharing, total_bytes: int) -> dict[str, float]:
    """No protocol spreads it faster than these: the seed's uplink carries it once, each node's downlink takes it, and
    all uplinks together carry it to all. (Mundinger, Weber and Weiss, "Optimal scheduling of peer-to-peer file
    dissemination", 2008.)"""
    others = [node for node in nodes if node is not seed]
    seed_us = 1e6 * total_bytes / seed.site.line.up if seed.site.line.up else 0.0
    downs = sorted(1e6 * total_bytes / node.site.line.down if node.site.line.down else 0.0 for node in others)
    ups = sum(node.site.line.up or 1 << 62 for node in nodes)
    shared_us = 1e6 * total_bytes * len(others) / ups
    floors = {}
    for percent in (50, 90, 100):
        down_us = downs[-(-len(downs) * percent // 100) - 1] if downs else 0.0
        floors[str(percent)] = max(seed_us, down_us, shared_us * percent / 100)
    return floors
