"""What a run was like, in figures."""

from __future__ import annotations

from dataclasses import dataclass, field

from potluck_netsim import facts
from potluck_netsim.faults import Faults
from potluck_netsim.world import START_US, Fact, World

# Points of a curve: a picture has room for as many.
BINS = 120


@dataclass(frozen=True)
class Goal:
    """A promise with a number. `met` is None where the scenario cannot tell."""

    name: str
    aim: str
    found: str
    met: bool | None

    def __str__(self) -> str:
        return f"{'met' if self.met else 'NOT MET':8}{self.name}: {self.found} (aim: {self.aim})"


@dataclass(frozen=True)
class Curve:
    """Of one quantity over time, a value for each bin, in the unit that its name says."""

    name: str
    values: tuple[float, ...]


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
    # Of the CPU time that was lent, what workers were busy with; in thousandths, as is Jain's index of fairness among
    # callers (Jain, Chiu and Hawe, 1984: 1 when all wait equally long for an input).
    busy_milli: int = 0
    fair_milli: int = 1000
    sent_bytes: int = 0
    offers: int = 0
    goals: tuple[Goal, ...] = ()
    curves: tuple[Curve, ...] = ()

    @property
    def success_milli(self) -> int:
        """Inputs whose function ran to its end, with a value or an exception, in thousandths of what was delivered."""
        ran = self.results + self.exceptions
        return 1000 * ran // max(1, ran + sum(self.failures.values()))

    def rows(self) -> list[tuple[str, str]]:
        failed = ", ".join(f"{count} {kind}" for kind, count in sorted(self.failures.items())) or "none"
        calls = max(1, self.calls)
        return [
            ("seed", f"{self.seed}: {self.nodes} nodes, {self.virtual_us / 1e6:.0f} virtual seconds"),
            ("faults", told(self.faults)),
            (
                "calls",
                f"{self.calls}: {self.calls_ended} ended, {self.calls_cancelled} cancelled, "
                f"{self.calls_of_the_dead} died with their node",
            ),
            ("inputs", f"{self.inputs}: {self.results} results, {self.exceptions} exceptions, failures: {failed}"),
            ("success", f"{self.success_milli / 10:.1f} % of what was delivered ran to its end"),
            ("deaths", str(self.deaths)),
            ("leases", f"{self.leases} opened ({self.leases / calls:.1f} a call), {self.receipts} receipts agreed"),
            (
                "latency",
                f"call p50 {self.call_us[0] / 1e3:.1f} ms, p99 {self.call_us[1] / 1e3:.1f} ms; "
                f"input p50 {self.input_us[0] / 1e3:.1f} ms, p99 {self.input_us[1] / 1e3:.1f} ms",
            ),
            ("use", f"{self.busy_milli / 10:.1f} % of the CPU time lent"),
            ("fairness", f"{self.fair_milli / 1000:.2f} among callers (1: all wait equally long)"),
            ("bytes", f"{self.sent_bytes / 1e6:.1f} MB of leases ({self.sent_bytes / 1e3 / calls:.1f} kB a call), "
             f"{self.offers} offers told"),
            ("events", str(self.events)),
        ]  # fmt: skip

    def __str__(self) -> str:
        return "\n".join([*(f"{name:10}{text}" for name, text in self.rows()), *map(str, self.goals)])


def told(faults: Faults) -> str:
    """Those that are there, in short."""
    there = [f"{name}={value}" for name, value in vars(faults).items() if value]
    return " ".join(there)


@dataclass
class Tally:
    """Counts facts; a checker that is content with everything."""

    counts: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    call_us: list[int] = field(default_factory=list)
    # When, and after how long, an input was delivered; below 0 if it failed.
    inputs: list[tuple[int, int]] = field(default_factory=list)
    waits: dict[str, tuple[int, int]] = field(default_factory=dict)
    busy: list[tuple[int, int]] = field(default_factory=list)
    busy_cpu_us: int = 0
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
        elif isinstance(fact, facts.Used):
            used_us = world.now_us - fact.began_us
            self.busy.append((world.now_us, used_us))
            self.busy_cpu_us += used_us * fact.cpu_milli // 1000

    def _delivered(self, fact: facts.Delivered, world: World) -> None:
        self.delivered_us = world.now_us
        took_us = world.now_us - self._given.pop((fact.node, fact.call, fact.index))
        self.inputs.append((world.now_us, -1 if fact.failure else took_us))
        count, sum_us = self.waits.get(fact.node, (0, 0))
        self.waits[fact.node] = count + 1, sum_us + took_us
        if fact.failure:
            self.failures[fact.failure.kind] = self.failures.get(fact.failure.kind, 0) + 1
        else:
            self._add("results" if fact.exception is None else "exceptions")

    def _add(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def report(
        self, world: World, nodes: int, faults: Faults, lent_us: int = 0, sent: tuple[int, int] = (0, 0)
    ) -> Report:
        """`lent_us` is the CPU time that was lent, `sent` bytes of streams and the number of offers."""
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
            call_us=middle_and_tail(self.call_us),
            input_us=middle_and_tail([took_us for _, took_us in self.inputs if took_us >= 0]),
            busy_milli=1000 * self.busy_cpu_us // lent_us if lent_us else 0,
            fair_milli=fairness([sum_us / count for count, sum_us in self.waits.values()]),
            sent_bytes=sent[0],
            offers=sent[1],
            curves=self._curves(world.now_us),
        )

    def _curves(self, now_us: int) -> tuple[Curve, ...]:
        """By the time of delivery."""
        width_us = max(1, (now_us - START_US) // BINS + 1)
        bins: list[list[int]] = [[] for _ in range(BINS)]
        busy = [0.0] * BINS
        for at_us, took_us in self.inputs:
            bins[(at_us - START_US) // width_us].append(took_us)
        for at_us, used_us in self.busy:
            busy[(at_us - START_US) // width_us] += used_us / width_us
        tails = [middle_and_tail([each for each in one if each >= 0]) for one in bins]
        return (
            Curve("results in a second", tuple(sum(each >= 0 for each in one) * 1e6 / width_us for one in bins)),
            Curve("failures in a second", tuple(one.count(-1) * 1e6 / width_us for one in bins)),
            Curve("input p50, s", tuple(tail[0] / 1e6 for tail in tails)),
            Curve("input p99, s", tuple(tail[1] / 1e6 for tail in tails)),
            Curve("workers busy", tuple(busy)),
        )


def middle_and_tail(times_us: list[int]) -> tuple[int, int]:
    """The 50th and the 99th of a hundred."""
    ordered = sorted(times_us) or [0]
    return ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]


def fairness(values: list[float]) -> int:
    """Jain's index, in thousandths."""
    squares = sum(value * value for value in values)
    return round(1000 * sum(values) ** 2 / (len(values) * squares)) if squares else 1000
