"""An image of 5.5 GB and a hundred empty nodes at homes, which all want it at once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from potluck_images.chunk import unpack
from potluck_images.digest import digest
from potluck_netsim import facts
from potluck_netsim.days import ORDINARY, SECOND_US
from potluck_netsim.faults import Faults
from potluck_netsim.node import Node
from potluck_netsim.report import Curve, Goal, Report, fairness
from potluck_netsim.scenarios import STUCK_US, Lab, Options
from potluck_netsim.sharing import (
    ChunkCame,
    ChunkKept,
    ImageLacks,
    ImageWhole,
    Picture,
    Sharing,
    draw_picture,
    line_floor_us,
)
from potluck_netsim.sites import LINES, Site, draw_home
from potluck_netsim.world import START_US, Checker, Fact, Trace, World

# Real chunks of large files have 64 KiB in the mean, and those of small ones up to 960 KiB.
CHUNK_BYTES = 512 << 10
# Of what is fetched, so much may come twice: at the end, idle peers take over what slow ones owe; and what was under
# way when a connection ended.
TWICE_MILLI, TWICE_MIN = 150, 64


@dataclass
class ChunksAreRight:
    """Nothing is kept but the image's own chunks, as they are."""

    picture: Picture
    promise = "every chunk that is kept is the one that was asked for"

    def see(self, fact: Fact, world: World) -> None:
        if isinstance(fact, ChunkKept):
            right = fact.digest in self.picture.frames and digest(unpack(fact.frame)) == fact.digest
            if not right:
                world.broken(self.promise, f"{fact.node} keeps what is not in the image", fact.node)


@dataclass
class FetchedOnce:
    """Nearly: see `TWICE_MILLI`."""

    chunks: int
    promise = "nobody fetches the same chunk twice, but for a few at the end"
    twice: dict[str, int] = field(default_factory=dict)
    came: dict[str, int] = field(default_factory=dict)

    def see(self, fact: Fact, world: World) -> None:
        if not isinstance(fact, ChunkCame):
            return
        self.came[fact.node] = self.came.get(fact.node, 0) + 1
        if not fact.again:
            return
        twice = self.twice[fact.node] = self.twice.get(fact.node, 0) + 1
        if twice > TWICE_MIN + self.chunks * TWICE_MILLI // 1000:
            how = f"{fact.node} got {twice} chunks again that it had, of {self.chunks}"
            world.broken(self.promise, how, fact.node, fact.server)


@dataclass
class EverybodyHasIt:
    promise = "everybody who stays ends with the image"

    def see(self, fact: Fact, world: World) -> None:
        if isinstance(fact, ImageLacks):
            world.broken(self.promise, f"{fact.node} lacks {fact.chunks} chunks", fact.node)


class Spread(Lab):
    """The first node has the image; the others begin within ten seconds. Where the seed is odd, every fifth serves
    junk."""

    usual_nodes, usual_minutes = 101, 30.0
    call_every_us = 0
    # A small mesh is given a small one.
    image_bytes, usual_chunks_per_node = 5_500_000_000, 104

    def __init__(self, options: Options, write: Trace = None) -> None:
        chunks = min(self.image_bytes // CHUNK_BYTES, self.usual_chunks_per_node * options.nodes)
        self.picture = draw_picture(chunks * CHUNK_BYTES, CHUNK_BYTES)
        super().__init__(options, write)
        first = self.nodes[0]
        assert isinstance(first, Sharing)
        first.have = dict.fromkeys(self.picture.frames)

    @classmethod
    def faults_of(cls, seed: int) -> Faults:
        """Nodes leave and come, some hear each other no more for a while: mildly, in every second world harshly."""
        dice = random.Random(f"spread {seed}")
        harsh = seed % 4 > 1
        return replace(
            ORDINARY,
            deaths_per_hour=dice.choice((6, 30)) if harsh else 1,
            away_us=dice.choice((2_000_000, 60_000_000)),
            freezes_per_hour=6 if harsh else 0,
            freeze_us=dice.choice((500_000, 15_000_000)),
            cuts_per_hour=20 if harsh else 2,
            cut_us=dice.choice((5_000_000, 60_000_000)),
            packet_lost_milli=dice.choice((0, 10)),
        )

    def _node(self, number: int) -> Node:
        changes = {"picture": self.picture, "spoils": bool(self.world.seed % 2 and number % 5 == 4)}
        return self._made(number, type("Home", (Sharing,), changes))

    def _site(self) -> Site:
        site = draw_home(self.world.dice)
        # The image was built where there is fibre, and whoever calls can be reached.
        return site if self.network.hosts else replace(site, line=LINES[1][0], nat="open")

    def _checkers(self) -> list[Checker]:
        self.once = FetchedOnce(len(self.picture.frames))
        return [ChunksAreRight(self.picture), self.once, EverybodyHasIt(), self]

    def see(self, fact: Fact, world: World) -> None:
        """Note progress."""
        if isinstance(fact, ChunkKept | ImageWhole):
            self.progress_us = world.now_us

    def homes(self) -> list[Sharing]:
        """All nodes but the first."""
        return [node for node in self.nodes[1:] if isinstance(node, Sharing)]

    def run(self) -> Report:
        """Raises `PromiseBroken`."""
        self.progress_us = START_US
        self._start()
        while self.world.now_us < self.ends_us and self._unfinished():
            self.world.run(min(self.world.now_us + SECOND_US, self.ends_us))
        self.ends_us = self.world.now_us
        self._cease()
        while self._unfinished() and self.world.now_us < max(self.ends_us, self.progress_us) + STUCK_US:
            self.world.run(self.world.now_us + SECOND_US)
        for home in self.homes():
            if home.lacks():
                self.world.fact(ImageLacks(home.name, home.lacks()))
        self.world.fact(facts.Quiet())
        sent = self.network.carried, self.network.gossip.told
        report = self.tally.report(self.world, len(self.nodes), self.faults, 0, sent)
        return replace(report, goals=tuple(self.goals(report)), curves=(self._curve(),))

    def _unfinished(self) -> bool:
        return any(home.lacks() for home in self.homes())

    def _stage(self) -> None:
        first = self.nodes[0]
        assert isinstance(first, Sharing)
        self.world.after(0, first.offer_whole)
        for home in self.homes():
            self.world.after(self.world.dice.randrange(10 * SECOND_US), partial(home.fetch))

    def _curve(self) -> Curve:
        ends = [home.whole_us for home in self.homes()]
        width_us = max(1, max(ends) - START_US) / 100
        return Curve("nodes that have it", tuple(
            float(sum(end <= START_US + at * width_us for end in ends)) for at in range(101)
        ))  # fmt: skip

    def figures(self) -> dict[str, float]:
        """Seconds until so many have it, and those that lines allow; the first node's bytes as a multiple of the
        image's; how equally the others serve, with a line like theirs, in thousandths; junk and what came twice."""
        homes, first, total = self.homes(), self.nodes[0], self.picture.total_bytes
        assert isinstance(first, Sharing)
        ends = sorted(home.whole_us - START_US for home in homes)
        floors = line_floor_us(self.network, [first, *homes], first, total)
        found: dict[str, float] = {}
        for percent in (50, 90, 100):
            found[f"t{percent}_s"] = ends[-(-len(ends) * percent // 100) - 1] / 1e6
            found[f"floor{percent}_s"] = floors[str(percent)] / 1e6
        found["first_images"] = first.sent_bytes / total
        found["fair_milli"] = fairness([home.sent_bytes / 1.0 for home in homes])
        found["most_images"] = max(home.sent_bytes for home in homes) / total
        found["twice_milli"] = 1000 * sum(self.once.twice.values()) / max(1, sum(self.once.came.values()))
        return found

    def goals(self, report: Report) -> Iterator[Goal]:
        found = self.figures()
        for percent in (50, 90, 100):
            took_s, floor_s = found[f"t{percent}_s"], found[f"floor{percent}_s"]
            text = f"{took_s:.0f} s, lines allow {floor_s:.0f} s"
            yield Goal(f"{percent} % of the nodes have the image", "≤ 2 × the floor", text, took_s <= 2 * floor_s + 60)
        first = found["first_images"]
        yield Goal("the first node's upload", "≤ 4 images", f"{first:.1f} images", first <= 4)
        text = f"index {found['fair_milli'] / 1000:.2f}, at most {found['most_images']:.1f} images by one node"
        yield Goal("bytes up are shared", "index ≥ 0.3", text, found["fair_milli"] >= 300)
        twice = found["twice_milli"]
        yield Goal("chunks that came twice", "≤ 2 %", f"{twice / 10:.2f} %", twice <= 20)
