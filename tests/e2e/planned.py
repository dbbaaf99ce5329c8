"""The third tier of `potluck_netsim.tiers`: a plan run by real nodes, each in a network namespace of its own.

Real are processes, sandboxes, libp2p, TCP, the kernel's cuts and the clients. All share this machine's processors, and
packets take no time where the kernel cannot delay them.
"""

from __future__ import annotations

import sched
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from tests.e2e.mesh import PATIENCE_S, wait_until
from tests.e2e.nat import Internet, Place, PlacedNode

from potluck.wire import control
from potluck_netsim.tiers.outcome import Outcome, Watch, receipts
from potluck_netsim.tiers.plan import Call, Fault, Machine, Plan

# So many nodes start at a time: each takes a second of a processor.
STARTING = 4
# An input of the first map for each lender, and some more, until all have the image.
TOUCHES = 4


class PlannedNode(PlacedNode):
    """Its log tells each lease."""

    @property
    def env(self) -> dict[str, str]:
        return super().env | {"POTLUCK_LOG": "DEBUG"}

    def leases(self) -> int:
        """How many reached another node."""
        return sum(" DEBUG potluck.caller: lease " in line for line in self.log.read_text().splitlines())


class Client:
    """A program beside a node that places one call."""

    def __init__(self, call: Call, node: PlannedNode, env: dict[str, str]) -> None:
        # By how much it placed its call late: it has to wake up first.
        self.call, self._told_s, self.late_s = call, 0.0, 0.0
        command = [sys.executable, "-m", "tests.e2e.plan_client", msgspec.json.encode(call).decode()]
        self._process = subprocess.Popen(
            command, env=node.env | env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def wait_ready(self) -> None:
        assert self._process.stdout
        assert self._process.stdout.readline() == "ready\n", f"no client for {self.call.name}"

    def place(self) -> None:
        self._told_s = time.monotonic()
        self._tell("\n")

    def _tell(self, text: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def end(self, watch: Watch) -> None:
        """Let it go, and take down what it tells."""
        try:
            printed, _ = self._process.communicate(timeout=PATIENCE_S)
        finally:
            self._process.kill()
        lines = printed.splitlines()
        watch.ran(self.call.name, sum("began " in line for line in lines))
        found = [line.removeprefix("outcome ") for line in lines if line.startswith("outcome ")]
        if found:
            outcome: dict[str, Any] = msgspec.json.decode(found[0])
            watch.placed(self.call.name, outcome["placed_s"])
            self.late_s = outcome["placed_s"] - self._told_s
            for at_s, index, kind in outcome["came"]:
                watch.came(self.call.name, index, kind, at_s)
            watch.over(self.call.name, outcome["over_s"])


class Planned:
    """The nodes of a plan, that know each other and all have the image."""

    def __init__(self, plan: Plan, folder: Path, net: Internet) -> None:
        self.plan, self.watch, self._folder, self._net = plan, Watch(plan), folder, net
        self.nodes: dict[str, PlannedNode] = {}
        self.dead: set[str] = set()
        self.remarks: list[str] = []

    def start(self) -> None:
        """The first one founds the mesh: it must be one that places calls, since those stay."""
        began_s = time.monotonic()
        for machine in self.plan.nodes:
            place = self._net.host(machine.name)
            self._delay(place)
            self.nodes[machine.name] = PlannedNode(self._folder, place, machine.name, *_flags(machine))
        first, *others = self.nodes.values()
        first.start()
        bootstrap = f"/ip4/{first.place.address}/tcp/4001/p2p/{first.status().peer}"
        for node in others:
            node.flags = (*node.flags, "--bootstrap", bootstrap)
        with ThreadPoolExecutor(STARTING) as pool:
            list(pool.map(PlannedNode.start, others))
        started_s = time.monotonic()
        lenders = {machine.name for machine in self.plan.nodes if machine.lends}
        for caller in self._callers():
            wait_until(lambda caller=caller: self._known(caller) >= lenders - {caller.name}, "all knowing all")
        known_s = time.monotonic()
        self.remarks.append(
            f"{len(self.nodes)} nodes started in {started_s - began_s:.1f} s; "
            f"all callers knew all lenders {known_s - started_s:.1f} s later"
        )

    def _callers(self) -> list[PlannedNode]:
        return [self.nodes[name] for name in dict.fromkeys(call.node for call in self.plan.calls)]

    def _known(self, node: PlannedNode) -> set[str]:
        return {peer.name for peer in node.status().peers if peer.state == "open"}

    def _delay(self, place: Place) -> None:
        """Packets take the plan's latency where the kernel has netem."""
        delay = f"{self.plan.latency_ms}ms"
        try:
            place.run("tc", "qdisc", "add", "dev", place.interface, "root", "netem", "delay", delay)
        except (subprocess.CalledProcessError, FileNotFoundError):
            if not self.remarks:
                self.remarks.append("this kernel has no netem: packets take no time")

    def warm(self, env: dict[str, str]) -> None:
        """Have the image at all lenders, and nothing running there."""
        lenders = [self.nodes[machine.name] for machine in self.plan.nodes if machine.lends]
        program = (
            "from tests.e2e import plan_sample\n"
            "with plan_sample.app.run(show_progress=False):\n"
            f"    list(plan_sample.touch.map(range({TOUCHES * len(lenders)})))\n"
        )
        caller = self._callers()[0]

        def all_have_it() -> bool:
            subprocess.run([sys.executable, "-c", program], env=caller.env | env, check=True, timeout=2 * PATIENCE_S)
            return all(node.status().images for node in lenders)

        wait_until(all_have_it, "the image at all lenders")

    def _wait_quiet(self) -> None:
        lenders = [self.nodes[machine.name] for machine in self.plan.nodes if machine.lends]
        wait_until(lambda: not any(node.status().workers for node in lenders), "the end of workers that were tried")

    def run(self, env: dict[str, str]) -> Outcome:
        """`env` has what clients need, such as where modules are."""
        clients = {call.name: Client(call, self.nodes[call.node], env) for call in self.plan.calls}
        try:
            for client in clients.values():
                client.wait_ready()
            self._wait_quiet()
            self._forget_before()
            began_s, agenda = time.monotonic(), sched.scheduler(time.monotonic)
            for call in self.plan.calls:
                agenda.enterabs(began_s + call.at_s, 1, clients[call.name].place)
            for fault in self.plan.faults:
                agenda.enterabs(began_s + fault.at_s, 0, self._befall, (fault, agenda))
            agenda.enterabs(began_s + self.plan.ends_s, 2, lambda: None)
            agenda.run()
        finally:
            for client in clients.values():
                client.end(self.watch)
        late_s = max(client.late_s for client in clients.values())
        self.remarks.append(f"calls were placed up to {late_s:.2f} s late")
        return self._outcome(time.monotonic() - began_s)

    def _befall(self, fault: Fault, agenda: sched.scheduler) -> None:
        for node in [self.nodes[name] for name in fault.nodes]:
            if fault.kind == "unplug":
                node.place.unplug()
            if fault.kind in ("kill", "unplug"):
                self.dead.add(node.name)
                node.kill()
            elif fault.kind == "freeze":
                _signal(node, signal.SIGSTOP)
                agenda.enter(fault.for_s, 0, _signal, (node, signal.SIGCONT))
            elif fault.kind == "pause":
                _pause(node, fault.for_s)
        if fault.kind == "cut":
            self._cut(fault.nodes, True)
            agenda.enter(fault.for_s, 0, self._cut, (fault.nodes, False))

    def _cut(self, side: tuple[str, ...], cut: bool) -> None:
        """Each refuses what comes from the other side."""
        for name, node in self.nodes.items():
            others = [each.place.address for other, each in self.nodes.items() if (other in side) != (name in side)]
            node.place.refuse(f"{{ {', '.join(others)} }}" if cut else "")

    def _outcome(self, spent_s: float) -> Outcome:
        used = inputs = halves = 0
        for name, node in self.nodes.items():
            if name not in self.dead:
                owner, records = node.journal()
                found = receipts(records, owner)
                used, inputs, halves = used + found[0], inputs + found[1], halves + found[2]
        leases = sum(node.leases() for node in self._callers()) - self._before[2]
        counts = (leases, used - self._before[0], inputs - self._before[1], halves)
        return Outcome("real", len(self.nodes), self.watch.fates(), *counts, spent_s, tuple(self.remarks))

    _before = (0, 0, 0)

    def _forget_before(self) -> None:
        """What was signed until now is not the plan's."""
        used = inputs = 0
        for node in self._callers():
            owner, records = node.journal()
            found = receipts(records, owner)
            used, inputs = used + found[0], inputs + found[1]
        self._before = used, inputs, sum(node.leases() for node in self._callers())

    def stop(self) -> None:
        with ThreadPoolExecutor(STARTING) as pool:
            list(pool.map(PlannedNode.stop, self.nodes.values()))


def _flags(machine: Machine) -> tuple[str, ...]:
    if not machine.lends:
        return ("--no-offer",)
    return ("--without-limits", "--cpus", str(machine.cpus), "--memory-mib", str(machine.memory_mib))


def _signal(node: PlannedNode, number: signal.Signals) -> None:
    assert node.process
    node.process.send_signal(number)


def _pause(node: PlannedNode, for_s: float) -> None:
    client = node.client()
    try:
        client.ask(lambda number: control.Pause(number, now=True, seconds=for_s), control.Done)
    finally:
        client.close()


@contextmanager
def planned(plan: Plan, folder: Path) -> Iterator[Planned]:
    """A mesh that is ready for the plan."""
    env = {"PYTHONPATH": str(Path(__file__).parents[2])}
    with ExitStack() as stack:
        made = Planned(plan, folder, stack.enter_context(Internet()))
        stack.callback(made.stop)
        made.start()
        made.warm(env)
        yield made


def run(plan: Plan, folder: Path) -> Outcome:
    """Takes as long as the plan, and before it about two seconds for each node."""
    with planned(plan, folder) as made:
        return made.run({"PYTHONPATH": str(Path(__file__).parents[2])})
