"""The first tier: a plan in the simulator, under its checkers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from potluck.wire import FunctionSpec
from potluck_netsim import facts
from potluck_netsim.faults import none
from potluck_netsim.interface import SimNode
from potluck_netsim.machine import FORK_US
from potluck_netsim.machine import Machine as SimMachine
from potluck_netsim.network import End, Network
from potluck_netsim.node import Node
from potluck_netsim.provider import SimProvider
from potluck_netsim.scenarios import Lab, Options
from potluck_netsim.tiers.outcome import Outcome, Watch, receipts
from potluck_netsim.tiers.plan import Call, Fault, Plan
from potluck_netsim.world import START_US, Checker, Fact, World
from potluck_node.core import provider_events as ev
from potluck_node.core.pools import Capacity

# What each call of a plan calls; its image is everywhere.
FUNCTION = FunctionSpec("plan", "work", "aa" * 32, "3.11", "plan", "work", timeout_us=60_000_000)
SECOND_US = 1_000_000


def payload(call: Call, index: int) -> bytes:
    """As the simulator's own functions take it, see `workload.py`."""
    return b"%s/%s/%d" % (b"raises" if call.raises(index) else b"ok", call.name.encode(), index)


def call_of(payload: bytes) -> str:
    return payload.split(b"/")[1].decode()


class PlannedMachine(SimMachine):
    """What runs takes as long as the plan says."""

    def __init__(self, node: SimNode, submit: Callable[[ev.Event], None], plan: Plan, watch: Watch) -> None:
        super().__init__(node, submit)
        self._plan, self._watch = plan, watch

    def run(self, action: ev.Run) -> None:
        if self._alive(action.pool, action.worker):
            for each in action.payloads:
                self._watch.ran(call_of(each))
        super().run(action)

    def fork_us(self) -> int:
        return FORK_US

    def needed_us(self, function: FunctionSpec, payload: bytes) -> int:
        return int(self._plan.call(call_of(payload)).run_s * SECOND_US)


class PlannedNetwork(Network):
    """Every message takes as long as the plan says: where many machines work, the last one of them counts."""

    def latency_us(self, one: str, other: str) -> int:
        return self.base_us(one, other)


def _node_of(plan: Plan, watch: Watch) -> type[Node]:
    class PlannedProvider(SimProvider):
        def __init__(self, node: SimNode) -> None:
            super().__init__(node)
            self.machine = PlannedMachine(node, self.submit, plan, watch)

    class PlannedNode(Node):
        make_provider = PlannedProvider

        def accept(self, end: End) -> None:
            watch.leases += self.provider is not None
            super().accept(end)

    return PlannedNode


class _Seen(Checker):
    """Facts, as the watch takes them."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def see(self, fact: Fact, world: World) -> None:
        watch, now_s = self._watch, (world.now_us - START_US) / SECOND_US
        if isinstance(fact, facts.CallPlaced):
            watch.placed(fact.call, now_s)
        elif isinstance(fact, facts.CallOver):
            watch.over(fact.call, now_s)
        elif isinstance(fact, facts.Delivered):
            kind = "failure" if fact.failure else "exception" if fact.exception else "result"
            watch.came(fact.call, fact.index, kind, now_s)


class PlanLab(Lab):
    """Machines and times are the plan's; the seed decides the rest, such as who has which key."""

    make_network = PlannedNetwork

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan, self.watch = plan, Watch(plan)
        latency_us = int(plan.latency_ms * 1000)
        faults = replace(none(), latency_min_us=latency_us, latency_max_us=latency_us)
        super().__init__(Options(seed, len(plan.nodes), plan.ends_s / 60, faults))
        self.named = {machine.name: node for machine, node in zip(plan.nodes, self.nodes, strict=True)}

    def _checkers(self) -> list[Checker]:
        return [*super()._checkers(), _Seen(self.watch)]

    def _node(self, number: int) -> Node:
        machine = self.plan.nodes[number]
        kind = _node_of(self.plan, self.watch)
        node = kind(self.network, number, Capacity(1000 * machine.cpus, machine.memory_mib), 1, machine.lends)
        node.images[FUNCTION.image] = None
        return node

    def _plan(self, node: Node) -> None:
        """Nothing by chance."""

    def _stage(self) -> None:
        for call in self.plan.calls:
            self.world.at(self._when(call), partial(self._place, call))
        for fault in self.plan.faults:
            for name in fault.nodes if fault.kind != "cut" else fault.nodes[:1]:
                self.world.at(self._when(fault), partial(self._befall, fault, self.named[name]))

    def _when(self, what: Call | Fault) -> int:
        return START_US + int(what.at_s * SECOND_US)

    def _place(self, call: Call) -> None:
        caller = self.named[call.node].caller
        caller.open(call.name, FUNCTION)
        for index in range(call.inputs):
            caller.give(call.name, index, payload(call, index))
        caller.end(call.name)

    def _befall(self, fault: Fault, node: Node) -> None:
        for_us = int(fault.for_s * SECOND_US)
        if fault.kind in ("kill", "unplug"):
            node.die(unplugged=fault.kind == "unplug")
        elif fault.kind == "freeze":
            node.freeze(for_us)
        elif fault.kind == "pause":
            node.pause(now=True)
            self.world.after(for_us, node.resume)
        else:
            self.network.cut(frozenset(self.named[name].peer for name in fault.nodes), for_us, one_way=False)


def run(plan: Plan, seed: int = 1) -> Outcome:
    """Raises `PromiseBroken`."""
    began_s, lab = time.monotonic(), PlanLab(plan, seed)
    lab.run()
    found = [receipts(node.journal.records(), node.peer) for node in lab.nodes]
    used, inputs, halves = (sum(each) for each in zip(*found, strict=True))
    spent_s = time.monotonic() - began_s
    return Outcome("simulated", len(lab.nodes), lab.watch.fates(), lab.watch.leases, used, inputs, halves, spent_s)
