"""A war about the ledger: nodes that cheat, fork and wash, all at once, while machines crash around writes, disks fill
and the mesh parts. At the end, an audit of all journals must name each cheat that cost anybody anything."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from potluck_ledger.vouchers import UNSIGNED_MAX_US
from potluck_netsim.cheats import CHEATS, Cheats, NoCheatPays
from potluck_netsim.days import ORDINARY
from potluck_netsim.faults import Faults
from potluck_netsim.forks import ForksAreProven, WitnessesSignOneHistory, is_fork, tell_histories
from potluck_netsim.journals import Forking, Watching
from potluck_netsim.node import Node
from potluck_netsim.report import Goal, Report
from potluck_netsim.scenarios import Options
from potluck_netsim.world import Checker, Fact, Trace, World

# Below this much, microseconds, nothing is worth a word: a voucher's worth, which each side may lose by a crash.
TRIFLE_US = UNSIGNED_MAX_US


@dataclass(frozen=True, slots=True)
class Cost(Fact):
    """An honest node has lost so much to a cheat: `told` is what an audit of all journals says of the two."""

    node: str
    cheat: str
    us: int
    told: tuple[str, ...]


@dataclass
class CheatsAreNamed:
    promise = "an audit names each cheat that cost anybody anything"
    costs: list[Cost] = field(default_factory=list)

    def see(self, fact: Fact, world: World) -> None:
        if isinstance(fact, Cost):
            self.costs.append(fact)
            if not fact.told:
                how = f"{fact.cheat} cost {fact.node} {fact.us / 1e6:.3f} s, and no journal shows it"
                world.broken(self.promise, how, fact.node, fact.cheat)


class War(Cheats):
    """Every second node cheats in one way, and every third of those forks, too; the first three, which are witnesses,
    do not. What two sides of a crash still lose is bounded by vouchers."""

    usual_nodes, usual_minutes = 24, 10.0

    @classmethod
    def faults_of(cls, seed: int) -> Faults:
        """Crashes around writes, full disks and cuts, in each world others."""
        dice = random.Random(f"war {seed}")
        return replace(
            ORDINARY, latency_max_us=50_000,
            deaths_per_hour=dice.choice((0, 6, 20)), silent_milli=500, away_us=dice.choice((2_000_000, 20_000_000)),
            write_crash_milli=dice.choice((0, 5, 20)), disk_us=dice.choice((0, 3_000, 50_000)),
            disk_full_per_hour=dice.choice((0, 6)), disk_full_us=5_000_000,
            cuts_per_hour=dice.choice((0, 20)), cut_us=dice.choice((5_000_000, 30_000_000)),
            gossip_lost_milli=dice.choice((5, 100)),
        )  # fmt: skip

    def __init__(self, options: Options, write: Trace = None) -> None:
        self.named = CheatsAreNamed()
        super().__init__(options, write)

    def _node(self, number: int) -> Node:
        kinds = sorted(set(CHEATS) - {"honest"})
        kind = kinds[(self.world.seed + number // 2) % len(kinds)] if number % 2 and number > 2 else "honest"
        caller, provider = CHEATS[kind]
        base = Forking if number % 6 == 5 else Watching
        node = self._made(number, type("Fighter", (base,), {"make_caller": caller, "make_provider": provider}))
        self._kinds[node.name] = kind
        return node

    def _checkers(self) -> list[Checker]:
        names = {node.peer: node.name for node in self.nodes}
        forking = frozenset(node.name for node in self.nodes if isinstance(node, Forking))
        cheats = frozenset(name for name, kind in self._kinds.items() if kind != "honest") | forking
        self.proven = ForksAreProven(frozenset(names.values()) - forking, forking)
        self.reckoned = NoCheatPays(names, cheats)
        return [self.reckoned, self.proven, WitnessesSignOneHistory(), self.named]

    def run(self) -> Report:
        """Raises `PromiseBroken`."""
        report = super().run()
        tell_histories(self)
        for cost in self._costs():
            self.world.fact(cost)
        return replace(report, goals=tuple(self._goals()))

    def exposures(self) -> Iterator[tuple[int, int]]:
        """Of each honest provider that did not die and each caller: what is unpaid, and what vouchers allow."""
        reckoned = self.reckoned
        for node, caller in reckoned.used_us:
            if node != caller and node not in reckoned.liars | reckoned.died:
                yield max(0, reckoned.unpaid_us(node, caller)), reckoned.allowed_us(node, caller)

    def _costs(self) -> Iterator[Cost]:
        peers = {node.name: node.peer for node in self.nodes}
        texts = [finding.text for finding in self.findings()]
        reckoned = self.reckoned
        for node, caller in reckoned.used_us:
            if caller not in reckoned.liars or node in reckoned.liars | reckoned.died:
                continue
            unpaid_us = reckoned.unpaid_us(node, caller)
            if unpaid_us > TRIFLE_US:
                told = tuple(text for text in texts if peers[node] in text and peers[caller] in text)
                yield Cost(node, caller, unpaid_us, told)

    def _goals(self) -> Iterator[Goal]:
        shown = list(self.exposures()) or [(0, 1)]
        worst = max(shown, key=lambda each: each[0] / each[1])
        text = f"{worst[0] / 1e6:.1f} s unpaid of {worst[1] / 1e6:.1f} s allowed, of {len(shown)} pairs"
        yield Goal("exposure to a cheat", "≤ what vouchers allow", text, all(one <= most for one, most in shown))
        named = sum(bool(cost.told) for cost in self.named.costs)
        text = f"{named} of {len(self.named.costs)}"
        yield Goal("costly cheats named by an audit", "all", text, named == len(self.named.costs))
        forked = [node for node in self.nodes if isinstance(node, Forking) and is_fork(node.histories())]
        proven = sum(node.name in self.proven.convicted for node in forked)
        yield Goal("forks proven", "all", f"{proven} of {len(forked)}", proven == len(forked))
