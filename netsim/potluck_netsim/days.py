"""What a mesh lives through: a working day, a crowd, a partition, everybody's leaving, an upgrade."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from potluck_netsim.faults import Faults, none
from potluck_netsim.node import Node
from potluck_netsim.owner import HABITS, Owner
from potluck_netsim.report import Goal, Report, middle_and_tail
from potluck_netsim.scenarios import MINUTE_US, Lab, Options
from potluck_netsim.sites import Site, draw_home
from potluck_netsim.workload import GOOD
from potluck_netsim.world import START_US, Trace

SECOND_US = 1_000_000
# What everyday life brings: a machine dies every other day, a worker crashes now and then.
ORDINARY = replace(
    none(), deaths_per_hour=0, silent_milli=500, slow_milli=50, slow_factor=3, straggler_milli=2, crash_milli=2,
    start_failed_milli=1, pool_failed_milli=1, cancelled_milli=20, latency_min_us=100, latency_max_us=2_000,
    packet_lost_milli=1, gossip_lost_milli=5,
)  # fmt: skip


class Everyday(Lab):
    """With ordinary faults, and functions that can run."""

    functions = GOOD

    @classmethod
    def faults_of(cls, seed: int) -> Faults:
        """The same in each world; its seed draws when they come."""
        return ORDINARY


class Workday(Everyday):
    """A lab of thirty workstations over a day: who works at one has it, and calls the others; at night all are idle."""

    usual_nodes, usual_minutes = 30, 24 * 60.0
    call_every_us = 20 * MINUTE_US

    def __init__(self, options: Options, write: Trace = None) -> None:
        super().__init__(options, write)
        self.owners = [Owner(node, self.world.dice.choice(HABITS[1:3]), 0) for node in self.nodes]

    def goals(self, report: Report) -> Iterator[Goal]:
        yield served(report, 990)


class Flash(Everyday):
    """Ten thousand calls within a minute, at machines of which none is warm."""

    usual_nodes, usual_minutes = 100, 2.0
    call_every_us = 0
    calls = 10_000

    def _site(self) -> Site:
        return draw_home(self.world.dice)

    def _stage(self) -> None:
        for _ in range(self.calls * len(self.nodes) // self.usual_nodes):
            node = self.world.dice.choice(self.nodes)
            self.world.after(self.world.dice.randrange(MINUTE_US), partial(self._call, node, 1))

    def goals(self, report: Report) -> Iterator[Goal]:
        yield served(report, 900)
        yield Goal("the crowd is served", "p99 ≤ 60 s", f"{report.input_us[1] / 1e6:.1f} s", report.input_us[1] <= 6e7)


class Parted(Everyday):
    """Half of the mesh does not hear the other for a third of the time; then it heals."""

    usual_nodes, usual_minutes = 30, 15.0

    def _stage(self) -> None:
        third_us = (self.ends_us - START_US) // 3
        side = frozenset(node.peer for node in self.nodes[::2])
        self.heals_us = START_US + 2 * third_us
        self.world.after(third_us, lambda: self.network.cut(side, third_us, one_way=False))

    def goals(self, report: Report) -> Iterator[Goal]:
        yield served(report, 950)
        before = [took for at_us, took in self.tally.inputs if at_us < self.heals_us - (self.heals_us - START_US) // 2]
        after = [took for at_us, took in self.tally.inputs if at_us - took > self.heals_us + 30 * SECOND_US]
        medians = middle_and_tail(before)[0], middle_and_tail(after)[0]
        found = f"{medians[1] / 1e3:.0f} ms, before the cut {medians[0] / 1e3:.0f} ms"
        yield Goal("30 s after healing all is as before", "median ≤ 2 ×", found, medians[1] <= 2 * medians[0] + 100_000)


class Exodus(Everyday):
    """At six, within a minute, three of four owners are back at their machines or switch them off."""

    usual_nodes, usual_minutes = 40, 10.0

    def _site(self) -> Site:
        return draw_home(self.world.dice)

    def _stage(self) -> None:
        dice = self.world.dice
        self.owners = [Owner(node, HABITS[-1], 0) for node in self.nodes]
        half_us = (self.ends_us - START_US) // 2
        for node, owner in list(zip(self.nodes, self.owners, strict=True))[1:]:
            if self.world.chance(750):
                at_us = half_us + dice.randrange(MINUTE_US)
                self.world.after(at_us, owner.came if dice.randrange(2) else partial(self._off, node))

    def _off(self, node: Node) -> None:
        if node.alive:
            node.die(unplugged=False)

    def goals(self, report: Report) -> Iterator[Goal]:
        yield served(report, 950)


class Upgrade(Everyday):
    """One node after the other is restarted with a new version of the protocol; old and new do not understand."""

    usual_nodes, usual_minutes = 20, 15.0

    def _stage(self) -> None:
        step_us = (self.ends_us - START_US) // (len(self.nodes) + 4)
        for number, node in enumerate(self.nodes):
            self.world.after((number + 1) * step_us, partial(self._upgrade, node))

    def _upgrade(self, node: Node) -> None:
        if node.alive:
            node.die(unplugged=False)
        node.protocol += 1
        self.world.after(5 * SECOND_US, partial(self._revive, node, node.life))

    def goals(self, report: Report) -> Iterator[Goal]:
        yield served(report, 900)


def served(report: Report, milli: int) -> Goal:
    """Of the inputs that were delivered, so many in a thousand ran to their end."""
    found = report.success_milli
    return Goal("calls are served", f"{milli / 10:g} %", f"{found / 10:.1f} %", found >= milli)
