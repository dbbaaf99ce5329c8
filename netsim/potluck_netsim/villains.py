"""A mesh of which three in ten are hostile in all ways at once, and where newcomers hear from these alone at first.

Each villain has some of the tricks: forged results, bills doubled or padded, receipts offered twice, leases that are
refused though the offer says warm, or granted and never answered; bills that it does not sign; a journal that forks;
offers told every two seconds. They don't conspire: two that forge the same result would pass a quorum of two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from potluck.errors import RefusedError
from potluck.wire import Failure, FunctionSpec
from potluck.wire import lease as messages
from potluck.wire.journal import HeadTold
from potluck.wire.offer import OFFER_LIST_MAX, Offer
from potluck_netsim import facts
from potluck_netsim.cheats import CHEATS, Doubling, NoCheatPays, Padding, Repeating
from potluck_netsim.checkers import (
    BansEnd,
    DeliveredOnce,
    HonestReceipts,
    HonestVouchers,
    SecondsAreConserved,
    all_checkers,
)
from potluck_netsim.days import ORDINARY, SECOND_US
from potluck_netsim.faults import Faults
from potluck_netsim.forks import ForksAreProven, WitnessesSignOneHistory, tell_histories
from potluck_netsim.gossip import Ear
from potluck_netsim.interface import Link
from potluck_netsim.journals import Forking, SimForks, SimJournals, Watching
from potluck_netsim.liars import ADAPTIVE, FORGED, QUORUM, Forging, NoLieIsDelivered, Wary
from potluck_netsim.node import Node
from potluck_netsim.provider import SimProvider
from potluck_netsim.report import Goal, Report
from potluck_netsim.scenarios import Lab, Options
from potluck_netsim.workload import GOOD
from potluck_netsim.world import START_US, Checker, Fact, Trace, World
from potluck_node.core import provider_events as pev
from potluck_node.core.stalls import PUT_OFF_FACTOR, SILENT_MAX

# Of ten nodes, these are hostile, and this one comes anew; witnesses are the first three.
VILLAINS, NEWCOMER = (4, 6, 9), 8
# A newcomer hears hostile offers alone for so long: as long as its first search.
ECLIPSED_US = 60 * SECOND_US
FLOOD_US = 2 * SECOND_US
# Each checkpoint is carried on to so many, as gossipsub does, and told this often: a flood costs the mesh's square.
DEGREE, TELL_US = 6, 30 * SECOND_US
# What a caller may lose to one that never answers before it knows: machines run up to eight inputs at once, and some
# more follow one by one.
TRIED_US = (8 + SILENT_MAX) * 30 * SECOND_US


class Refusing(SimProvider):
    """Takes nothing, whatever its offer says."""

    def _ask(self, message: Any, caller: str, link: Link) -> str:
        if caller == self._node.peer:
            return super()._ask(message, caller, link)
        link.post(messages.LeaseRefused("busy", Failure.of(RefusedError("This node is busy."))))
        link.finish()
        return ""


class Stalling(SimProvider):
    """Grants leases, and never runs what it is given."""

    def _do(self, action: pev.Action) -> None:
        if not isinstance(action, pev.Run):
            super()._do(action)


class LyingHalf(Forging):
    forged_milli = 500


TRICKS: tuple[type[SimProvider], ...] = (LyingHalf, Doubling, Padding, Repeating, Refusing, Stalling)
CALLERS = tuple(kind for kind in sorted(CHEATS) if CHEATS[kind][0] is not CHEATS["honest"][0])


class _Sparse(SimJournals):
    """Tells some of the others, who carry it on."""

    def _tell_for_ever(self) -> None:
        told: dict[bytes, list[str]] = {}
        for peer in self._others():
            told.setdefault(self.shown_to(peer).checkpoint(self._node.now_us).encode(), []).append(peer)
        for checkpoint, peers in told.items():
            self._gossip(HeadTold(checkpoint), self._some(peers))
        self._node.later(TELL_US, self._tell_for_ever)

    def _gossip(self, message: Any, peers: Any) -> None:
        super()._gossip(message, self._some(list(peers)))

    def _some(self, peers: list[str]) -> list[str]:
        return peers if len(peers) <= DEGREE else self._world.dice.sample(peers, DEGREE)


class _SparseForks(_Sparse, SimForks):
    pass


class Fair(Watching):
    """An honest node."""

    make_caller = Wary
    hostile = False

    def make_journals(self) -> SimJournals:
        return _Sparse(self)


class Newcomer(Fair):
    """Hears hostile offers alone, at first."""

    def _hear(self, ear: Ear) -> None:
        if self.world.now_us - self.born_us < ECLIPSED_US:
            ear.coming = [each for each in ear.coming if getattr(each[1].voice, "hostile", False)]
        super()._hear(ear)


class Villain(Watching):
    hostile = True

    def make_journals(self) -> SimJournals:
        return _Sparse(self)

    def be_born(self) -> None:
        super().be_born()
        self.later(FLOOD_US, self._flood)

    def _flood(self) -> None:
        self._tell_offer(self._telling)
        self.later(FLOOD_US, self._flood)

    def make_offer(self) -> Offer | None:
        """Says to be idle, and warm with whatever anybody has."""
        offer = super().make_offer()
        if offer is None:
            return None
        nodes = (host for host in self.network.hosts.values() if isinstance(host, Node) and host.alive)
        warm = dict.fromkeys(name for node in nodes if node.provider for name in node.provider.core.warm())
        idle = {"cpu_free_milli": offer.cpu_milli, "memory_free_mib": offer.memory_mib, "state": "open"}
        return msgspec.structs.replace(offer, warm=tuple(warm)[:OFFER_LIST_MAX], **idle)


class ForkingVillain(Villain, Forking):
    def make_journals(self) -> SimJournals:
        return _SparseForks(self)


@dataclass
class AmongHonest:
    """Shows a checker only what does not involve villains (`names`)."""

    checker: Checker
    names: frozenset[str]

    def see(self, fact: Fact, world: World) -> None:
        who = {getattr(fact, name, "") for name in ("node", "provider", "other")}
        if not who & self.names and (not isinstance(fact, facts.VoucherChecked) or fact.other.startswith("node-")):
            self.checker.see(fact, world)


@dataclass
class Spoils:
    """Counts what honest callers got, and what they signed to whom, and what newcomers got."""

    hostile: frozenset[str]
    newcomers: frozenset[str]
    checked: set[str]
    inputs: dict[str, int] = field(default_factory=dict)
    signed_us: dict[bool, int] = field(default_factory=dict)

    def see(self, fact: Fact, world: World) -> None:
        if isinstance(fact, facts.Delivered) and fact.node not in self.hostile:
            how = "failed" if fact.failure else "served"
            if fact.payload and fact.payload.startswith(FORGED):
                how = "forged, checked" if fact.call in self.checked else "forged"
            self._count(how)
            if fact.node in self.newcomers:
                self._count(f"newcomers: {how}")
        elif isinstance(fact, facts.Kept) and fact.node not in self.hostile and fact.peer != fact.node:
            hostile = world.names[fact.peer] in self.hostile
            self.signed_us[hostile] = self.signed_us.get(hostile, 0) + fact.used_us

    def _count(self, what: str) -> None:
        self.inputs[what] = self.inputs.get(what, 0) + 1


@dataclass
class LittleIsPaidForNothing:
    """A caller signs little to who answers none of its inputs (`silent`): as many as run there at once when it is tried
    first, and then a part of the time."""

    names: dict[str, str]
    silent: frozenset[str]
    honest: frozenset[str]
    promise = "who answers nothing while others answer is not asked again and again"

    def see(self, fact: Fact, world: World) -> None:
        if not isinstance(fact, facts.Kept) or fact.node not in self.honest or self.names[fact.peer] not in self.silent:
            return
        passed_us = world.now_us - START_US
        if fact.used_us > TRIED_US + passed_us // (1 + PUT_OFF_FACTOR):
            who = self.names[fact.peer]
            world.broken(self.promise, f"{fact.node} paid {who} {fact.used_us} µs for nothing", fact.node, who)


class Hostile(Lab):
    usual_nodes, usual_minutes = 100, 10.0
    functions = GOOD

    def __init__(self, options: Options, write: Trace = None) -> None:
        self.quorums: set[str] = set()
        super().__init__(options, write)

    @classmethod
    def faults_of(cls, seed: int) -> Faults:
        """Ordinary ones, in every second world some deaths and cuts, too."""
        rough = seed % 2
        return replace(
            ORDINARY, latency_max_us=100_000, deaths_per_hour=6 * rough, freezes_per_hour=2 * rough,
            cuts_per_hour=6 * rough,
        )  # fmt: skip

    def _node(self, number: int) -> Node:
        dice = self.world.dice
        if number % 10 not in VILLAINS:
            return self._made(number, Newcomer if number % 10 == NEWCOMER else Fair)
        tricks = tuple(dice.sample(TRICKS, min(len(TRICKS), dice.randint(1, 3))))
        tricks = tuple(each for each in TRICKS if each in tricks)
        provider = type("Tricky", tricks, {})
        caller = CHEATS[dice.choice(CALLERS)][0]
        kind = ForkingVillain if dice.randrange(3) == 0 else Villain
        return self._made(number, type("Hostile", (kind,), {"make_caller": caller, "make_provider": provider}))

    def villains(self) -> frozenset[str]:
        return frozenset(node.name for node in self.nodes if isinstance(node, Villain))

    def _silent(self) -> frozenset[str]:
        """Who answers nothing, and doesn't make up bills either."""
        kinds = {node.name: node.make_provider for node in self.nodes if isinstance(node, Villain)}
        return frozenset(name for name, kind in kinds.items() if issubclass(kind, Stalling))

    def _checkers(self) -> list[Checker]:
        names, hostile = {node.peer: node.name for node in self.nodes}, self.villains()
        honest = frozenset(names.values()) - hostile
        replaced = DeliveredOnce | BansEnd | HonestReceipts | HonestVouchers | SecondsAreConserved
        plain = [each for each in all_checkers(names, self.faults.drift_ppm) if not isinstance(each, replaced)]
        filtered: list[Checker] = [
            HonestReceipts(),
            HonestVouchers(),
            *plain,
            NoLieIsDelivered(honest=honest, checked=self.quorums),
        ]
        forking = frozenset(node.name for node in self.nodes if isinstance(node, Forking))
        self.proven, self.witnesses = ForksAreProven(honest, forking), WitnessesSignOneHistory()
        newcomers = frozenset(node.name for node in self.nodes if isinstance(node, Newcomer))
        self.spoils = Spoils(hostile, newcomers, self.quorums)
        whole: list[Checker] = [
            NoCheatPays(names, hostile),
            BansEnd(names, hostile),
            LittleIsPaidForNothing(names, self._silent(), honest),
            self.proven,
            self.witnesses,
            self.spoils,
        ]
        return [*(AmongHonest(each, hostile) for each in filtered), *whole]

    def _begin(self, node: Node, call: str, function: FunctionSpec) -> None:
        rule = self.world.dice.choice((None, QUORUM, ADAPTIVE))
        if rule is QUORUM and not isinstance(node, Villain):
            self.quorums.add(call)
        node.caller.open(call, function, rule)

    def run(self) -> Report:
        """Raises `PromiseBroken`."""
        report = super().run()
        tell_histories(self)
        return report

    def goals(self, report: Report) -> Iterator[Goal]:
        count = self.spoils.inputs.get
        for who, aim in (("", 970), ("newcomers: ", 900)):
            served, bad = count(who + "served", 0), count(who + "failed", 0) + count(who + "forged, checked", 0)
            milli = 1000 * served // max(1, served + bad)
            name = "newcomers are served" if who else "honest calls are served"
            yield Goal(name, f"≥ {aim / 10:g} %", f"{milli / 10:.1f} % of {served + bad}", milli >= aim)
        forged = count("forged, checked", 0)
        yield Goal("forged results where a quorum is asked for", "0", str(forged), forged == 0)
        unchecked = count("forged", 0)
        yield Goal("forged results elsewhere", "≤ 5 %", f"{unchecked} of {count('served', 0)}",
                   unchecked * 20 <= count("served", 0))  # fmt: skip
        paid, honest_us = self.spoils.signed_us.get(True, 0), self.spoils.signed_us.get(False, 0)
        milli = 1000 * paid // max(1, paid + honest_us)
        yield Goal("hostile share of the paid work", "≤ 30 %", f"{milli / 10:.1f} %", milli <= 300)
