"""Scenarios: who is there, what is called, what goes wrong, and when it must be over."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from potluck.wire import FunctionSpec
from potluck_ledger.entries import Dispute, read_content
from potluck_netsim import facts
from potluck_netsim.checkers import all_checkers
from potluck_netsim.faults import Faults, draw_faults
from potluck_netsim.network import Network
from potluck_netsim.node import Node
from potluck_netsim.owner import Owner
from potluck_netsim.report import Goal, Report, Tally
from potluck_netsim.sites import LAN, Site
from potluck_netsim.workload import draw_function, draw_payload
from potluck_netsim.world import LINES_KEPT, LINES_MIN, START_US, Checker, Do, Trace, World
from potluck_node.core.pools import Capacity
from potluck_node.core.staff import ZYGOTE_US

MINUTE_US = 60_000_000
# A node places a call this often, and a map has at most so many inputs: a third of what a mesh of such machines bears.
CALL_EVERY_US, INPUTS_MAX = 15_000_000, 40
# After the faults, a mesh that has delivered nothing for this long is stuck: the longest ban takes 2 min, the longest
# run 30 s.
STUCK_US = 5 * MINUTE_US
# How often it is looked at what nodes hold.
OBSERVE_US = 10_000_000
# Of larger meshes than this less often, since little changes at each of their nodes.
OBSERVED = 50
# After the last call: leases linger 2 s, receipts take 5 s, workers stay warm for a minute and zygotes longer.
EMPTY_US = ZYGOTE_US + 2 * MINUTE_US


@dataclass(frozen=True)
class Options:
    """`minutes` pass before faults cease; without `faults`, the scenario says what the seed brings."""

    seed: int
    nodes: int = 50
    minutes: float = 10.0
    faults: Faults | None = None


def faults_of(seed: int) -> Faults:
    """The faults that a seed draws, with dice of their own: setting one fault leaves the others as they are."""
    return draw_faults(random.Random(f"faults of {seed}"))


class Lab:
    """A mesh of machines whose users call each other's, for a while; then the faults stop and everything must end."""

    # What the command line takes when nothing is said.
    usual_nodes, usual_minutes = 50, 10.0
    # How often somebody places a call at a node (0: never), and whether offers are really signed and verified.
    call_every_us: float = CALL_EVERY_US
    signed = True
    # What is called, by name; else everything, also what cannot run.
    functions: tuple[str, ...] = ()
    make_network: type[Network] = Network

    def __init__(self, options: Options, write: Trace = None) -> None:
        self.world = World(options.seed, write, max(LINES_MIN, min(LINES_KEPT, LINES_KEPT * OBSERVED // options.nodes)))
        self.faults = options.faults or self.faults_of(options.seed)
        self.tally = Tally()
        self.network = self.make_network(self.world, self.faults, self.signed)
        self.nodes = [self._node(number) for number in range(options.nodes)]
        self.world.checkers = [*self._checkers(), self.tally]
        self.ends_us = START_US + int(options.minutes * MINUTE_US)
        self._calls = 0
        self.owners: list[Owner] = []

    @classmethod
    def faults_of(cls, seed: int) -> Faults:
        """What goes wrong where nobody says what."""
        return faults_of(seed)

    def _checkers(self) -> list[Checker]:
        return all_checkers({node.peer: node.name for node in self.nodes}, self.faults.drift_ppm)

    def _node(self, number: int) -> Node:
        return self._made(number, Node)

    def _made(self, number: int, kind: type[Node]) -> Node:
        dice = self.world.dice
        capacity = Capacity(1000 * dice.choice((1, 2, 4, 8)), 1024 * dice.choice((2, 4, 16)))
        slow = self.faults.slow_factor if self.world.chance(self.faults.slow_milli) else 1
        # The first always lends, so that the mesh is not empty.
        offers = number == 0 or self.world.chance(800)
        gpus = dice.choice((0, 0, 1, 2))
        made = kind(self.network, number, capacity, slow, offers, gpus, self._site(), *self._clock())
        made.power_fails = partial(self._kill, made)
        made.protocol -= self.world.chance(self.faults.old_milli)
        return made

    def _site(self) -> Site:
        return LAN

    def _clock(self) -> tuple[int, int]:
        """By how much a node's clock is wrong, and how much faster or slower it goes, in millionths."""
        faults, dice = self.faults, self.world.dice
        skew_us = dice.randint(-faults.skew_us, faults.skew_us) if self.world.chance(faults.skewed_milli) else 0
        return skew_us, dice.randint(-faults.drift_ppm, faults.drift_ppm)

    def run(self) -> Report:
        """Raises `PromiseBroken`."""
        self._start()
        self.world.run(self.ends_us)
        self._cease()
        while any(node.caller.calls for node in self.nodes) and not self._stuck():
            self.world.run(self.world.now_us + 1_000_000)
        self.world.fact(facts.Quiet())
        self.world.run(self.world.now_us + EMPTY_US)
        bans = (ban for node in self.nodes if node.alive for ban in node.still_banned())
        for fact in (*self._leftovers(), *bans, *self._kept(), facts.Reckoned()):
            self.world.fact(fact)
        lent_us = sum(node.up_us() * node.capacity.cpu_milli // 1000 for node in self.nodes if node.provider)
        sent = self.network.carried, self.network.gossip.told
        report = self.tally.report(self.world, len(self.nodes), self.faults, lent_us, sent)
        return replace(report, goals=tuple(self.goals(report)))

    def _start(self) -> None:
        """Plan what is to happen."""
        self.world.tell("world", f"{len(self.nodes)} nodes, {self.faults}")
        for node in self.nodes:
            self._plan(node)
        if self.faults.cuts_per_hour:
            self._often(60 * MINUTE_US / self.faults.cuts_per_hour, self._cut)
        self.world.after(OBSERVE_US, self._observe)
        self._stage()

    def goals(self, report: Report) -> Iterator[Goal]:
        """What the scenario is to show, beside promises kept."""
        yield from ()

    # What users do

    def _observe(self) -> None:
        """Look at what nodes hold, as long as there are faults."""
        for node in self.nodes:
            if node.alive:
                self.world.fact(node.observed())
        if self.world.now_us < self.ends_us:
            self.world.after(OBSERVE_US * max(1, len(self.nodes) // OBSERVED), self._observe)

    def _stage(self) -> None:
        """What happens to the mesh as a whole, beside faults."""

    def _plan(self, node: Node) -> None:
        """The clockwork of one node: calls, and each kind of fault at its own rate."""
        faults, hour_us = self.faults, 60 * MINUTE_US
        if self.call_every_us:
            self._often(self.call_every_us, partial(self._call, node))
        for rate, fault in (
            (faults.deaths_per_hour, self._kill),
            (faults.freezes_per_hour, self._freeze),
            (faults.pauses_per_hour, self._pause),
            (faults.disk_full_per_hour, self._fill),
            (faults.gpu_lost_per_hour, self._lose_gpu),
        ):
            if rate:
                self._often(hour_us / rate, partial(fault, node))

    def _often(self, every_us: float, do: Do) -> None:
        """Do something again and again, at random, until the faults stop."""

        def again() -> None:
            if self.world.now_us < self.ends_us:
                do()
                self.world.after(self.world.around(every_us), again)

        self.world.after(self.world.around(every_us), again)

    def _call(self, node: Node, inputs: int = 0) -> None:
        """Somebody calls a function, on one input or a map, unless it is said on how many."""
        if not node.alive or self.world.now_us < node.frozen_until_us:
            return
        dice = self.world.dice
        self._calls += 1
        call = f"call-{self._calls}"
        inputs = inputs or (1 if dice.randrange(3) else dice.randrange(2, INPUTS_MAX))
        self._begin(node, call, draw_function(self.world, self.functions))
        # All at once, or one by one as a generator yields them.
        gap_us = dice.choice((0, 0, 20_000))
        for index in range(inputs):
            node.later(index * gap_us, partial(self._give, node, call, index))
        node.later(inputs * gap_us, partial(self._end, node, call))
        if self.world.chance(self.faults.cancelled_milli):
            node.later(self.world.around(2_000_000), partial(node.caller.cancel, call, "ctrl-c"))

    def _begin(self, node: Node, call: str, function: FunctionSpec) -> None:
        node.caller.open(call, function)

    def _give(self, node: Node, call: str, index: int) -> None:
        if call in node.caller.calls:
            node.caller.give(call, index, draw_payload(self.world, self.faults, call, index))

    def _end(self, node: Node, call: str) -> None:
        node.caller.end(call)

    # What goes wrong

    def _kill(self, node: Node) -> None:
        if node.alive:
            node.die(self.world.chance(self.faults.silent_milli))
            self.world.after(self.world.around(self.faults.away_us), partial(self._revive, node, node.life))

    def _revive(self, node: Node, life: int) -> None:
        if not node.alive and node.life == life:
            node.be_born()

    def _freeze(self, node: Node) -> None:
        if node.alive and self.world.now_us >= node.frozen_until_us:
            node.freeze(self.world.around(self.faults.freeze_us))

    def _pause(self, node: Node) -> None:
        if node.alive:
            node.later(0, partial(node.pause, self.world.chance(500)))
            node.later(self.world.around(self.faults.away_us), node.resume)

    def _fill(self, node: Node) -> None:
        if node.alive:
            node.fill_disk(self.world.around(self.faults.disk_full_us))

    def _lose_gpu(self, node: Node) -> None:
        if node.alive:
            node.later(0, partial(node.lose_gpu, self.world.around(self.faults.away_us)))

    def _cut(self) -> None:
        """Some and the others do not hear each other for a while."""
        dice = self.world.dice
        side = dice.sample(self.nodes, dice.randint(1, max(1, len(self.nodes) // 2)))
        for_us, one_way = self.world.around(self.faults.cut_us), self.world.chance(self.faults.one_way_milli)
        names = ", ".join(node.name for node in side)
        how = "are not heard by" if one_way else "are cut off from"
        self.world.tell("world", f"{names} {how} the others for {for_us / 1e6:.1f} s")
        self.network.cut(frozenset(node.peer for node in side), for_us, one_way=one_way)

    def _cease(self) -> None:
        """No more faults: whoever is dead comes back, owners lend again; a freeze that has begun takes its time."""
        self.world.tell("world", "no more faults from here on")
        for node in self.nodes:
            if not node.alive:
                node.be_born()
            node.later(0, node.resume)
        self.network.heal()
        # A call may wait for the only machine that can run it until its owner leaves.
        for owner in self.owners:
            owner.goes_away()

    def _stuck(self) -> bool:
        return self.world.now_us > max(self.ends_us, self.tally.delivered_us) + STUCK_US

    def _kept(self) -> Iterator[facts.Kept]:
        for node in [each for each in self.nodes if each.has_books]:
            contents = [read_content(record.content)[1] for record in node.journal.records()]
            too_much: dict[str, int] = {}
            for each in contents:
                if isinstance(each, Dispute) and each.signed_us > each.claimed_us:
                    too_much[each.against] = too_much.get(each.against, 0) + each.signed_us - each.claimed_us
            for account in node.journal.accounts.by_peer.values():
                sums = account.given_us, account.used_us, account.unsigned_us, too_much.get(account.peer, 0)
                yield facts.Kept(node.name, account.peer, *sums)

    def _leftovers(self) -> Iterator[facts.Leftover]:
        for node in self.nodes:
            for what in node.leftovers() if node.alive else ():
                yield facts.Leftover(node.name, what)
