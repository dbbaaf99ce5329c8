"""Meshes of strangers: some providers forge results, callers verify. Runs the node's own cores in all else."""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec.structs import replace

from potluck.runner.plain import MAGIC
from potluck.wire import FunctionSpec
from potluck.wire.verify import Canary, EvidenceFacts, Verification
from potluck.wire.worker import InputSucceeded
from potluck_netsim.caller import SimCaller
from potluck_netsim.checkers import BansEnd, DeliveredOnce, EveryCallEnds, all_checkers
from potluck_netsim.facts import Delivered, Verdict
from potluck_netsim.faults import Faults
from potluck_netsim.network import Network
from potluck_netsim.node import Node
from potluck_netsim.provider import SimProvider
from potluck_netsim.scenarios import Lab, Options
from potluck_netsim.workload import FUNCTIONS, result_of
from potluck_netsim.world import Checker, Fact, Trace, World
from potluck_node.core import events as ev
from potluck_node.core import provider_events as pev
from potluck_node.core.calls import CallCore
from potluck_node.core.levels import Levels
from potluck_node.core.pools import Capacity

# Everything answers, as fast as it can: what is measured is who lies.
CALM = Faults(
    deaths_per_hour=0, freezes_per_hour=0, pauses_per_hour=0, slow_milli=0, raise_milli=0, straggler_milli=0,
    crash_milli=0, start_failed_milli=0, pool_failed_milli=0, cancelled_milli=0, latency_max_us=5_000,
    gossip_lost_milli=0,
)  # fmt: skip
FORGED = MAGIC + b"forged by "

# Of the functions, so many have secrets: they run at home alone.
SECRET_MILLI = 100
QUORUM, ADAPTIVE = Verification(2, 3), Verification(2, 5, adaptive=True)


class Wary(SimCaller):
    """Trusts itself alone."""

    def _make_core(self) -> CallCore:
        standing = Levels(self._node.peer).of
        return CallCore(self._node.book, self._world.dice, self._node.make_offer, standing)

    def _do(self, action: ev.Action) -> None:
        if isinstance(action, ev.Judged):
            self._judged(action.evidence)
        super()._do(action)

    def _judged(self, evidence: EvidenceFacts) -> None:
        for vote in evidence.votes:
            banned = bool(self.core.reputation.banned(vote.peer, self._node.now_us))
            who = self._node.network.hosts[vote.peer].name
            self._world.fact(Verdict(self._node.name, who, vote.verdict, evidence.kind, banned))


class Forging(SimProvider):
    """Forges one answer in ten, each time another one. Whether an input is checked, it is not told."""

    forged_milli = 100

    def submit(self, event: pev.Event) -> None:
        done = event.outcome if isinstance(event, pev.OutcomeCame) else None
        if isinstance(event, pev.OutcomeCame) and isinstance(done, InputSucceeded) and self._lies():
            payload = FORGED + self._node.name.encode() + bytes(done.payload)
            event = pev.OutcomeCame(event.pool, event.worker, replace(done, payload=payload))
        super().submit(event)

    def _lies(self) -> bool:
        return self._world.chance(self.forged_milli)


class Honest(Node):
    make_caller = Wary


class Liar(Node):
    make_caller, make_provider = Wary, Forging


@dataclass
class NoLieIsDelivered(DeliveredOnce):
    """Of calls that ask for a quorum; of the others, each outcome is delivered once, whatever it is."""

    promise = "a result that did not reach its quorum is never delivered, and no honest peer is blamed"
    honest: frozenset[str] = frozenset()
    checked: set[str] = field(default_factory=set)

    def see(self, fact: Fact, world: World) -> None:
        if isinstance(fact, Verdict) and fact.verdict == "wrong" and {fact.peer, fact.node} <= self.honest:
            world.broken(self.promise, f"{fact.peer} is blamed by {fact.node}", fact.node, fact.peer)
        if isinstance(fact, Delivered) and fact.payload and fact.payload.startswith(FORGED):
            if fact.call in self.checked:
                world.broken(self.promise, f"input {fact.index} of {fact.call} is forged", fact.node)
            payload = self.given[fact.node, fact.call, fact.index]
            fact = Delivered(fact.node, fact.call, fact.index, result_of(payload), None, None)
        super().see(fact, world)


class Strangers(Lab):
    """A mesh where nobody trusts anybody, every fourth node forges results, and calls are verified in all ways, or not;
    with all faults of a lab."""

    def __init__(self, options: Options, write: Trace = None) -> None:
        self.quorums: set[str] = set()
        super().__init__(options, write)

    def _node(self, number: int) -> Node:
        return self._made(number, Liar if number % 4 == 3 else Honest)

    def _checkers(self) -> list[Checker]:
        honest = frozenset(node.name for node in self.nodes if not isinstance(node, Liar))
        plain = all_checkers({node.peer: node.name for node in self.nodes}, self.faults.drift_ppm)
        others = [each for each in plain if not isinstance(each, DeliveredOnce | BansEnd)]
        names = {node.peer: node.name for node in self.nodes}
        others.append(BansEnd(names, frozenset(names.values()) - honest))
        return [*others, NoLieIsDelivered(honest=honest, checked=self.quorums)]

    def _begin(self, node: Node, call: str, function: FunctionSpec) -> None:
        rule = self.world.dice.choice((None, QUORUM, ADAPTIVE))
        if self.world.chance(SECRET_MILLI):
            rule, function = None, replace(function, secrets=("key",))
        # A liar's own machine lies to itself, and is believed.
        if rule is QUORUM and not isinstance(node, Liar):
            self.quorums.add(call)
        node.caller.open(call, function, rule)


@dataclass
class Watch:
    """What a hunt is about: how many answers of the liar were there when it was banned, and whether any was forged."""

    liar: str
    caught: bool = False
    forged: int = 0

    def see(self, fact: Fact, world: World) -> None:
        if isinstance(fact, Verdict) and fact.peer == self.liar and fact.banned:
            self.caught = True
        if isinstance(fact, Delivered) and fact.payload and fact.payload.startswith(FORGED):
            self.forged += 1


@dataclass(frozen=True)
class Found:
    """Of one hunt: calls that were made, and answers of the liar, until it was banned (all of them if it was not);
    forged results that were delivered; runs that were asked for beyond one for each call, in thousandths."""

    caught: bool
    calls: int
    answers: int
    forged: int
    extra_milli: int


class Hunt:
    """One caller that lends nothing, and providers, of which the last forges (unless `lies` is false)."""

    function = FUNCTIONS[1][0]

    def __init__(self, seed: int, rule: Verification, providers: int = 4, *, lies: bool = True) -> None:
        self.world, self.rule = World(seed), rule
        network = Network(self.world, CALM)
        lent = Capacity(2000, 8192)
        self.caller = Honest(network, 0, lent, 1, False)
        self.nodes = [
            (Liar if lies and number == providers else Honest)(network, number, lent, 1, True)
            for number in range(1, providers + 1)
        ]
        self.watch = Watch(self.nodes[-1].name)
        self.world.checkers = [EveryCallEnds(), self.watch]
        self.answered = 0

    def run(self, calls: int, *, stop_when_caught: bool = False) -> Found:
        """Make so many calls, some at a time, as a map does."""
        caller, given = self.caller.caller, 0
        caller.open("hunt", self.function, self.rule)
        function = next(iter(caller.core._functions.values()))
        self.world.run(self.world.now_us + 2_000_000)
        while given < calls and not (stop_when_caught and self.watch.caught):
            for _ in range(min(50, calls - given)):
                caller.give("hunt", given, b"ok/hunt/%d" % given)
                given += 1
            before = -1
            while caller.core.checking.awaited(caller.core._calls["hunt"]) and before != self.world.now_us:
                before = self.world.now_us
                self.world.run(before + 100_000)
        caller.end("hunt")
        self.world.run(self.world.now_us + 60_000_000)
        sent = sum(self._answers(node) for node in self.nodes)
        return Found(
            self.watch.caught, given, self._answers(self.nodes[-1]), self.watch.forged,
            1000 * (sent - function.replicas.inputs) // max(1, function.replicas.inputs),
        )  # fmt: skip

    def _answers(self, node: Node) -> int:
        """How many inputs of the caller a node has run, as both signed."""
        account = node.journal.accounts.account(self.caller.peer)
        return account.inputs_given


def canaries(milli: int) -> Verification:
    """Adaptive replication with canaries, so many in a thousand."""
    known = tuple(Canary(payload, result_of(payload)) for payload in (b"ok/known/%d" % at for at in range(16)))
    return replace(ADAPTIVE, canary_milli=milli, canaries=known)
