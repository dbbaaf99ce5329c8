"""What came of a plan, as a user sees it; and whether two tiers saw the same."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from potluck_ledger.entries import Receipt, read_content
from potluck_ledger.journal import Record
from potluck_netsim.tiers.plan import Call, Plan


class Fate(msgspec.Struct, frozen=True):
    """Of a call. Runs are those that workers began: more than inputs where some had to begin again. Times are seconds
    from placing the call, to its end and to the median result."""

    name: str
    inputs: int
    results: int
    exceptions: int
    failures: int
    doubled: int
    runs: int
    took_s: float
    median_s: float


class Outcome(msgspec.Struct, frozen=True):
    """Of a plan in one tier. `leases` are those that reached another node, `receipts` those that both sides
    signed, as the callers' journals have them, for so many `billed` inputs; `halves` are in journals of lenders that
    are left, with one signature."""

    tier: str
    nodes: int
    fates: tuple[Fate, ...]
    leases: int
    receipts: int
    billed: int
    halves: int = 0
    spent_s: float = 0.0
    remarks: tuple[str, ...] = ()


@dataclass
class Watch:
    """Takes down what happens while a plan runs. Times are seconds of the tier's own clock."""

    plan: Plan
    leases: int = 0
    _placed: dict[str, float] = field(default_factory=dict)
    _over: dict[str, float] = field(default_factory=dict)
    _came: dict[str, list[tuple[float, int, str]]] = field(default_factory=dict)
    _runs: dict[str, int] = field(default_factory=dict)

    def placed(self, call: str, at_s: float) -> None:
        self._placed[call], self._came[call] = at_s, []

    def came(self, call: str, index: int, kind: str, at_s: float) -> None:
        """An outcome reached whoever placed the call: a "result", an "exception" or a "failure"."""
        self._came[call].append((at_s, index, kind))

    def over(self, call: str, at_s: float) -> None:
        self._over[call] = at_s

    def ran(self, call: str, runs: int = 1) -> None:
        """A worker began an input."""
        self._runs[call] = self._runs.get(call, 0) + runs

    def fates(self) -> tuple[Fate, ...]:
        return tuple(self._fate(call) for call in self.plan.calls if call.name in self._placed)

    def _fate(self, call: Call) -> Fate:
        began_s, came = self._placed[call.name], self._came[call.name]
        kinds = [kind for _, _, kind in came]
        took = [at_s - began_s for at_s, _, _ in came]
        return Fate(
            call.name,
            call.inputs,
            kinds.count("result"),
            kinds.count("exception"),
            kinds.count("failure"),
            len(came) - len({index for _, index, _ in came}),
            self._runs.get(call.name, 0),
            round(self._over.get(call.name, float("inf")) - began_s, 3),
            round(statistics.median(took), 3) if took else float("inf"),
        )


def receipts(journal: Iterable[Record], owner: str) -> tuple[int, int, int]:
    """In a journal: receipts of what its owner used, the inputs in them, and receipts with one signature."""
    used = inputs = halves = 0
    for record in journal:
        envelope, content = read_content(record.content)
        if isinstance(content, Receipt):
            halves += len(envelope.signatures) < 2
            if content.caller == owner:
                used, inputs = used + 1, inputs + content.inputs
    return used, inputs, halves


@dataclass(frozen=True)
class Bounds:
    """How far two tiers may be apart: a time by a part of it and seconds; counts by some, of leases by one in `one_in`
    where those are more: whom dice choose may be asked in vain."""

    factor: float
    slack_s: float
    runs: int = 2
    leases: int = 2
    one_in: int = 16


# On virtual time all that differs is the order of equal moments, and where dice choose a lender.
CLOSE = Bounds(1.25, 0.4)
# Real processes share two cores with all other nodes, start Python in sandboxes, and find each other again by back-off.
WALL = Bounds(2.5, 4.0, runs=4, leases=6)


def disagreements(plan: Plan, one: Outcome, other: Outcome, bounds: Bounds) -> Iterator[str]:
    """In words. What users were promised must be the same; times and counts within bounds."""
    for outcome in (one, other):
        yield from _broken(plan, outcome)
    for ours, theirs in zip(one.fates, other.fates, strict=False):
        yield from _apart(f"{ours.name}: {one.tier} and {other.tier}", ours, theirs, bounds)
    for name, most in (("leases", bounds.leases), ("receipts", bounds.leases)):
        both = getattr(one, name), getattr(other, name)
        if abs(both[0] - both[1]) > max(most, max(both) // bounds.one_in):
            yield f"{name}: {one.tier} has {both[0]}, {other.tier} {both[1]}"


def _broken(plan: Plan, outcome: Outcome) -> Iterator[str]:
    """Promises that hold in every tier: each input is delivered once, as what it is."""
    if len(outcome.fates) != len(plan.calls):
        yield f"{outcome.tier}: of {len(plan.calls)} calls {len(outcome.fates)} were placed"
    for call, fate in zip(plan.calls, outcome.fates, strict=False):
        raising = sum(map(call.raises, range(call.inputs)))
        wanted = (call.inputs - raising, raising, 0, 0)
        if (fate.results, fate.exceptions, fate.failures, fate.doubled) != wanted:
            yield f"{outcome.tier}: {call.name} should have {wanted}, and has {fate}"
        if fate.runs < fate.inputs or fate.took_s == float("inf"):
            yield f"{outcome.tier}: {call.name} did not run to its end: {fate}"


def _apart(where: str, ours: Fate, theirs: Fate, bounds: Bounds) -> Iterator[str]:
    if abs(ours.runs - theirs.runs) > bounds.runs:
        yield f"{where} began {ours.runs} and {theirs.runs} runs"
    for name in ("took_s", "median_s"):
        less, more = sorted((getattr(ours, name), getattr(theirs, name)))
        if more > less * bounds.factor + bounds.slack_s:
            yield f"{where}: {name} is {getattr(ours, name)} and {getattr(theirs, name)}"


def table(outcomes: list[Outcome]) -> str:
    """A line for each call and tier, for people."""
    lines = [f"{'call':10}{'tier':12}{'inputs':>7}{'results':>8}{'raised':>7}{'failed':>7}{'twice':>6}"
             f"{'again':>6}{'took s':>8}{'median s':>9}"]  # fmt: skip
    for fates in zip(*(outcome.fates for outcome in outcomes), strict=False):
        for outcome, fate in zip(outcomes, fates, strict=True):
            lines.append(
                f"{fate.name:10}{outcome.tier:12}{fate.inputs:7}{fate.results:8}{fate.exceptions:7}{fate.failures:7}"
                f"{fate.doubled:6}{fate.runs - fate.inputs:6}{fate.took_s:8.2f}{fate.median_s:9.2f}"
            )
    for outcome in outcomes:
        lines.append(
            f"{outcome.tier}: {outcome.nodes} nodes, {outcome.leases} leases, {outcome.receipts} receipts agreed for "
            f"{outcome.billed} inputs, {outcome.halves} with one signature; {outcome.spent_s:.1f} s"
        )
        lines += [f"  {remark}" for remark in outcome.remarks]
    return "\n".join(lines)
