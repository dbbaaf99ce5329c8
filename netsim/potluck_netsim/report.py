"""What a run was like, in figures."""

from __future__ import annotations

from dataclasses import dataclass, field

from potluck_netsim import facts
from potluck_netsim.faults import Faults
from potluck_netsim.world import START_US, Fact, World


@dataclass(frozen=True)
class Report:
    """Times are virtual microseconds, and from placing to the end of a call, from giving to delivery of an input."""

    seed: int
    nodes: int
    faults: Faults
    virtual_us: int
    events: int
    calls: int
    calls_ended: int
    calls_cancelled: int
    calls_of_the_dead: int
    inputs: int
    results: int
    exceptions: int
    failures: dict[str, int]
    deaths: int
    leases: int
    receipts: int
    call_us: tuple[int, int]
    input_us: tuple[int, int]

    def __str__(self) -> str:
        failed = ", ".join(f"{count} {kind}" for kind, count in sorted(self.failures.items())) or "none"
        return "\n".join(
            (
                f"seed      {self.seed}: {self.nodes} nodes, {self.virtual_us / 1e6:.0f} virtual seconds",
                f"faults    {self.faults}",
                f"calls     {self.calls}: {self.calls_ended} ended, {self.calls_cancelled} cancelled, "
                f"{self.calls_of_the_dead} died with their node",
                f"inputs    {self.inputs}: {self.results} results, {self.exceptions} exceptions, failures: {failed}",
                f"deaths    {self.deaths}",
                f"leases    {self.leases} opened, {self.receipts} receipts agreed",
                f"latency   call p50 {self.call_us[0] / 1e3:.1f} ms, p99 {self.call_us[1] / 1e3:.1f} ms; "
                f"input p50 {self.input_us[0] / 1e3:.1f} ms, p99 {self.input_us[1] / 1e3:.1f} ms",
                f"events    {self.events}",
            )
        )


@dataclass
class Tally:
    """Counts facts; a checker that is content with everything."""

    counts: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    call_us: list[int] = field(default_factory=list)
    input_us: list[int] = field(default_factory=list)
    delivered_us: int = 0
    _placed: dict[tuple[str, str], int] = field(default_factory=dict)
    _given: dict[tuple[str, str, int], int] = field(default_factory=dict)

    def see(self, fact: Fact, world: World) -> None:
        self._add(type(fact).__name__)
        if isinstance(fact, facts.CallPlaced):
            self._placed[fact.node, fact.call] = world.now_us
        elif isinstance(fact, facts.InputGiven):
            self._given[fact.node, fact.call, fact.index] = world.now_us
        elif isinstance(fact, facts.CallOver):
            self.call_us.append(world.now_us - self._placed.pop((fact.node, fact.call)))
        elif isinstance(fact, facts.Delivered):
            self._delivered(fact, world)

    def _delivered(self, fact: facts.Delivered, world: World) -> None:
        self.delivered_us = world.now_us
        self.input_us.append(world.now_us - self._given[fact.node, fact.call, fact.index])
        if fact.failure:
            self.failures[fact.failure.kind] = self.failures.get(fact.failure.kind, 0) + 1
        else:
            self._add("results" if fact.exception is None else "exceptions")

    def _add(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def report(self, world: World, nodes: int, faults: Faults) -> Report:
        count = self.counts.get
        ended, cancelled = count("CallOver", 0), count("CallDropped", 0)
        return Report(
            seed=world.seed,
            nodes=nodes,
            faults=faults,
            virtual_us=world.now_us - START_US,
            events=world.events,
            calls=count("CallPlaced", 0),
            calls_ended=ended,
            calls_cancelled=cancelled,
            calls_of_the_dead=count("CallPlaced", 0) - ended - cancelled,
            inputs=count("InputGiven", 0),
            results=count("results", 0),
            exceptions=count("exceptions", 0),
            failures=self.failures,
            deaths=count("NodeDied", 0),
            leases=count("LeaseWanted", 0),
            receipts=count("ReceiptChecked", 0),
            call_us=_middle_and_tail(self.call_us),
            input_us=_middle_and_tail(self.input_us),
        )


def _middle_and_tail(times_us: list[int]) -> tuple[int, int]:
    """The 50th and the 99th of a hundred."""
    ordered = sorted(times_us) or [0]
    return ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
