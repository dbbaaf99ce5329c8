"""Promises to users, each watched by one checker from outside of the cores."""

from __future__ import annotations

from dataclasses import dataclass, field

from potluck_netsim import facts
from potluck_netsim.machine import NOTICED_US
from potluck_netsim.workload import exception_of, raises, result_of
from potluck_netsim.world import Checker, Fact, World
from potluck_node.core.offers import OFFERS_MAX
from potluck_node.core.receipts import DRIFT_PPM, ROUNDING_US
from potluck_node.core.staff import POOLS_MAX
from potluck_node.provider import LEASES_MAX

# A core that is woken more often waits for something that no waking brings. Retries after a refusal take 1 s each and
# lingering leases 2 s, so twenty leases and a map's retries stay far below.
TICKS_MAX, ASKS_MAX, WINDOW_US = 200, 10, 1_000_000
# Who cannot keep a signature does not give it.
UNKEPT = "The journal cannot be written"
# What waits at a provider for a worker: of each lease as much again as runs, and what was on the way; machines here run
# eight workers at most.
WAITING_MAX = LEASES_MAX * 2
# Promised to owners: no new work after this; and their machine free so long after the grace.
NO_NEW_WORK_US, GONE_US = 250_000, 2_000_000


@dataclass
class EveryCallEnds:
    """With a result or an error for each input, once faults have ceased; unless its own node died."""

    promise = "every call ends"
    wants = (
        facts.CallPlaced,
        facts.InputGiven,
        facts.Delivered,
        facts.CallDropped,
        facts.CallOver,
        facts.NodeDied,
        facts.Quiet,
    )
    open: dict[tuple[str, str], set[int]] = field(default_factory=dict)

    def see(self, fact: Fact, world: World) -> None:
        if isinstance(fact, facts.CallPlaced):
            self.open[fact.node, fact.call] = set()
        elif isinstance(fact, facts.InputGiven):
            self.open[fact.node, fact.call].add(fact.index)
        elif isinstance(fact, facts.Delivered):
            self.open.get((fact.node, fact.call), set()).discard(fact.index)
        elif isinstance(fact, facts.CallDropped):
            self.open.pop((fact.node, fact.call), None)
        elif isinstance(fact, facts.CallOver):
            self._over(fact, world)
        elif isinstance(fact, facts.NodeDied):
            self.open = {key: inputs for key, inputs in self.open.items() if key[0] != fact.node}
        elif isinstance(fact, facts.Quiet):
            for node, call in self.open:
                inputs = sorted(self.open[node, call])
                world.broken(self.promise, f"{call} of {node} still waits for its inputs {inputs}", node)

    def _over(self, fact: facts.CallOver, world: World) -> None:
        left = sorted(self.open.pop((fact.node, fact.call), set()))
        if left:
            world.broken(self.promise, f"{fact.call} ended without an outcome of its inputs {left}", fact.node)


@dataclass
class DeliveredOnce:
    """Each input's own outcome, once, and none to a call that was cancelled or is over."""

    promise = "every result is delivered exactly once, and never to a call that was cancelled"
    given: dict[tuple[str, str, int], bytes] = field(default_factory=dict)
    cancelled: set[tuple[str, str]] = field(default_factory=set)

    def see(self, fact: Fact, world: World) -> None:
        if isinstance(fact, facts.InputGiven):
            self.given[fact.node, fact.call, fact.index] = fact.payload
        elif isinstance(fact, facts.CallDropped):
            self.cancelled.add((fact.node, fact.call))
        elif isinstance(fact, facts.Delivered):
            self._delivered(fact, world)

    def _delivered(self, fact: facts.Delivered, world: World) -> None:
        what = f"input {fact.index} of {fact.call}"
        if (fact.node, fact.call) in self.cancelled:
            world.broken(self.promise, f"{what} was delivered although the call was cancelled", fact.node)
        payload = self.given.pop((fact.node, fact.call, fact.index), None)
        if payload is None:
            world.broken(self.promise, f"{what} was delivered again", fact.node)
        elif not _is_own(payload, fact):
            world.broken(self.promise, f"{what} got an outcome that is not its own", fact.node)


def _is_own(payload: bytes, fact: facts.Delivered) -> bool:
    """Whether exactly one outcome is set, and it is what the function makes of the payload, or a failure to run it."""
    if [fact.payload, fact.exception, fact.failure].count(None) != 2:
        return False
    if raises(payload):
        return fact.failure is not None or fact.exception == exception_of(payload)
    return fact.failure is not None or fact.payload == result_of(payload)


@dataclass
class LendsNoMore:
    """The processes on a machine, as they are started and end, never need more than its owner lends."""

    promise = "a node never runs more workers than it lends"
    wants = facts.WorkersChanged

    def see(self, fact: Fact, world: World) -> None:
        if not isinstance(fact, facts.WorkersChanged):
            return
        if fact.cpu_milli > fact.lent_cpu_milli or fact.memory_mib > fact.lent_memory_mib:
            used = f"{fact.workers} workers use {fact.cpu_milli / 1000:g} CPUs and {fact.memory_mib} MiB"
            lent = f"{fact.lent_cpu_milli / 1000:g} CPUs and {fact.lent_memory_mib} MiB are lent"
            world.broken(self.promise, f"{used}; {lent}", fact.node)


@dataclass
class OneTenant:
    """Each GPU is in one sandbox at a time."""

    promise = "a GPU is never leased twice"
    wants = facts.GpusChanged

    def see(self, fact: Fact, world: World) -> None:
        if isinstance(fact, facts.GpusChanged) and len(set(fact.gpus)) < len(fact.gpus):
            world.broken(self.promise, f"in use are {', '.join(fact.gpus)}", fact.node)


@dataclass
class HonestReceipts:
    """Among honest nodes each receipt is signed, and what is billed was seen by the caller's own clock."""

    promise = "an honest receipt is accepted, and bills no more than the caller saw"
    wants = facts.ReceiptChecked

    def see(self, fact: Fact, world: World) -> None:
        if not isinstance(fact, facts.ReceiptChecked):
            return
        if fact.objection and not fact.objection.startswith(UNKEPT):
            world.broken(self.promise, fact.objection, fact.node, fact.provider)
        seen_us = fact.meter.seen_us
        # As much as two clocks may differ.
        most_us = seen_us + seen_us * DRIFT_PPM // 1_000_000 + ROUNDING_US * fact.receipt.inputs
        if not fact.receipt.busy_us <= fact.receipt.lease_us <= most_us:
            bill = f"busy {fact.receipt.busy_us} µs, billed {fact.receipt.lease_us} µs, seen {seen_us} µs"
            world.broken(self.promise, bill, fact.node, fact.provider)


@dataclass
class HonestVouchers:
    """Among honest nodes each voucher is signed and taken."""

    promise = "an honest voucher is accepted"
    wants = facts.VoucherChecked

    def see(self, fact: Fact, world: World) -> None:
        if isinstance(fact, facts.VoucherChecked) and fact.objection and not fact.objection.startswith(UNKEPT):
            world.broken(self.promise, fact.objection, fact.node, fact.other)


@dataclass
class SecondsAreConserved:
    """What a worker was busy with is billed once; what a journal counts as given is signed by the other side, and was
    used. `names` has those of peers; `liars` are left out of what only honest nodes promise."""

    promise = "every second that is billed was used, and none is billed twice"
    names: dict[str, str] = field(default_factory=dict)
    liars: frozenset[str] = frozenset()
    # A second by a clock that goes wrong is another one.
    drift_ppm: int = 0
    used_us: dict[tuple[str, str], int] = field(default_factory=dict)
    uses: dict[tuple[str, str], int] = field(default_factory=dict)
    billed_us: dict[tuple[str, str], int] = field(default_factory=dict)
    kept: dict[tuple[str, str], facts.Kept] = field(default_factory=dict)
    leases: set[tuple[str, str, str]] = field(default_factory=set)
    busy_until_us: dict[tuple[str, str], int] = field(default_factory=dict)
    died: set[str] = field(default_factory=set)

    def see(self, fact: Fact, world: World) -> None:
        if isinstance(fact, facts.Used):
            self._used(fact, world)
        elif isinstance(fact, facts.Billed):
            self._billed(fact, world)
        elif isinstance(fact, facts.NodeDied | facts.DiskFull):
            self.died.add(fact.node)
        elif isinstance(fact, facts.Kept):
            self.kept[fact.node, self.names[fact.peer]] = fact
        elif isinstance(fact, facts.Reckoned):
            self._reckoned(world)

    def _used(self, fact: facts.Used, world: World) -> None:
        key = (fact.node, self.names[fact.caller])
        self.used_us[key] = self.used_us.get(key, 0) + world.now_us - fact.began_us
        self.uses[key] = self.uses.get(key, 0) + 1
        for thing in (fact.worker, *fact.gpus):
            if self.busy_until_us.get((fact.node, thing), 0) > fact.began_us:
                world.broken(self.promise, f"{thing} was busy with two things at a time", fact.node)
            self.busy_until_us[fact.node, thing] = world.now_us

    def _billed(self, fact: facts.Billed, world: World) -> None:
        lease = (fact.node, fact.caller, fact.lease)
        if lease in self.leases:
            world.broken(self.promise, f"lease {fact.lease} is billed again", fact.node)
        self.leases.add(lease)
        key = (fact.node, self.names[fact.caller])
        self.billed_us[key] = self.billed_us.get(key, 0) + fact.lease_us

    def _reckoned(self, world: World) -> None:
        for (node, caller), used_us in self.used_us.items():
            billed_us = self.billed_us.get((node, caller), 0)
            if node == caller or node in self.liars:
                continue
            if billed_us > used_us + self._drift_us(node, caller):
                world.broken(self.promise, f"{caller} is billed {billed_us} µs, and used {used_us} µs", node, caller)
            # Who dies has nothing to say of what then ran, but for what was signed; nor is the moment billed in which
            # a worker is ended.
            unseen_us = self.uses[node, caller] * NOTICED_US + self._drift_us(node, caller)
            if node not in self.died and billed_us < used_us - unseen_us:
                world.broken(self.promise, f"{caller} used {used_us} µs, and is billed {billed_us} µs", node, caller)
        for (node, peer), kept in self.kept.items():
            self._agrees(node, peer, kept, world)

    def _drift_us(self, node: str, caller: str) -> int:
        """By how much a clock that goes wrong may have mistaken what was used; each use is rounded."""
        used_us, uses = self.used_us.get((node, caller), 0), self.uses.get((node, caller), 0)
        return (used_us * self.drift_ppm // 1_000_000 + uses) if self.drift_ppm else 0

    def _agrees(self, node: str, peer: str, kept: facts.Kept, world: World) -> None:
        theirs = self.kept.get((peer, node))
        signed_us = theirs.used_us if theirs else 0
        if peer not in self.liars and kept.given_us > signed_us:
            how = f"{node} counts {kept.given_us} µs as given, of which {peer} signed {signed_us} µs"
            world.broken(self.promise, how, node, peer)
        used_us = self.used_us.get((peer, node), 0)
        if not {node, peer} & self.liars and kept.used_us > used_us + self._drift_us(peer, node):
            how = f"{node} signed {kept.used_us} µs to {peer}, and used {used_us} µs"
            world.broken(self.promise, how, node, peer)


@dataclass
class NoBusyWaiting:
    """A node that waits neither spins nor pesters its peers."""

    promise = "a node that waits stays calm"
    wants = (facts.Ticked, facts.LeaseWanted)
    window: int = 0
    counts: dict[tuple[str, ...], int] = field(default_factory=dict)

    def see(self, fact: Fact, world: World) -> None:
        if isinstance(fact, facts.Ticked):
            self._count((fact.node, fact.core), TICKS_MAX, world)
        elif isinstance(fact, facts.LeaseWanted):
            self._count((fact.node, fact.peer, fact.function), ASKS_MAX, world)

    def _count(self, key: tuple[str, ...], limit: int, world: World) -> None:
        window = world.now_us // WINDOW_US
        if window != self.window:
            self.window, self.counts = window, {}
        self.counts[key] = self.counts.get(key, 0) + 1
        if self.counts[key] > limit:
            world.broken(self.promise, f"{' '.join(key)}: more than {limit} times in a second", key[0])


@dataclass
class NothingLeft:
    """A quiet mesh holds no lease, no worker and no timer."""

    promise = "a quiet node is empty"
    wants = facts.Leftover

    def see(self, fact: Fact, world: World) -> None:
        if isinstance(fact, facts.Leftover):
            world.broken(self.promise, f"{fact.node} still has {fact.what}", fact.node)


@dataclass
class OwnerComesFirst:
    """Whoever sits down at a machine has it: nobody else's work begins there, and what runs ends with its grace.
    `names` has those of peers."""

    promise = "the owner gets the machine back"
    names: dict[str, str]
    since: dict[str, facts.OwnerCame] = field(default_factory=dict)
    since_us: dict[str, int] = field(default_factory=dict)

    def see(self, fact: Fact, world: World) -> None:
        if isinstance(fact, facts.OwnerCame):
            self.since[fact.node], self.since_us[fact.node] = fact, world.now_us
        elif isinstance(fact, facts.OwnerLeft | facts.NodeDied | facts.NodeFroze):
            self.since.pop(fact.node, None)
        elif isinstance(fact, facts.RunBegan | facts.Used) and fact.node in self.since:
            self._worked(fact, self.names[fact.caller], world)

    def _worked(self, fact: facts.RunBegan | facts.Used, caller: str, world: World) -> None:
        here_us = world.now_us - self.since_us[fact.node]
        most_us = NO_NEW_WORK_US
        if isinstance(fact, facts.Used):
            most_us = self.since[fact.node].grace_us + GONE_US
        if caller != fact.node and here_us > most_us:
            what = "began" if isinstance(fact, facts.RunBegan) else "still ran"
            how = f"work of {caller} {what} {here_us / 1e6:.3f} s after its owner came back"
            world.broken(self.promise, how, fact.node, caller)


@dataclass
class OffersAreFresh:
    """Nobody is asked whose offer has run out."""

    promise = "an offer that is used is fresh"
    wants = facts.LeaseWanted

    def see(self, fact: Fact, world: World) -> None:
        if isinstance(fact, facts.LeaseWanted) and fact.fresh_us <= 0:
            how = f"a peer is asked for {fact.function} whose offer ended {-fact.fresh_us / 1e6:.3f} s ago"
            world.broken(self.promise, how, fact.node)


@dataclass
class SecretsStayHere:
    """What has secrets runs only where they may be known."""

    promise = "no secret reaches a peer that is not trusted"
    wants = facts.LeaseWanted

    def see(self, fact: Fact, world: World) -> None:
        if isinstance(fact, facts.LeaseWanted) and fact.secret and not fact.trusted:
            world.broken(self.promise, f"{fact.function} is placed at a stranger", fact.node)


@dataclass
class BansEnd:
    """Who did nothing wrong is asked again, sooner or later. `liars` are left out."""

    promise = "no honest node is banned for good"
    wants = facts.StillBanned
    names: dict[str, str]
    liars: frozenset[str] = frozenset()

    def see(self, fact: Fact, world: World) -> None:
        if isinstance(fact, facts.StillBanned) and not {fact.node, self.names[fact.peer]} & self.liars:
            peer = self.names[fact.peer]
            world.broken(self.promise, f"{fact.node} does nothing with {peer}: {fact.why}", fact.node, peer)


@dataclass
class LimitsHold:
    """No queue, table or book grows without end."""

    promise = "what a node holds stays within its limits"
    wants = facts.Observed

    def see(self, fact: Fact, world: World) -> None:
        if not isinstance(fact, facts.Observed):
            return
        for what, held, most in (
            ("leases given", fact.leases_given, LEASES_MAX),
            ("leases taken", fact.leases_taken, LEASES_MAX),
            ("pools", fact.pools, POOLS_MAX),
            ("inputs waiting here", fact.waiting, WAITING_MAX),
            ("offers", fact.offers, OFFERS_MAX),
        ):
            if held > most:
                world.broken(self.promise, f"{held} {what}, of at most {most}", fact.node)


def all_checkers(names: dict[str, str], drift_ppm: int = 0) -> list[Checker]:
    machines: list[Checker] = [LendsNoMore(), OneTenant(), HonestReceipts(), HonestVouchers()]
    seconds = SecondsAreConserved(names, drift_ppm=drift_ppm)
    machines += [OwnerComesFirst(names), OffersAreFresh(), SecretsStayHere(), BansEnd(names), LimitsHold()]
    return [EveryCallEnds(), DeliveredOnce(), *machines, seconds, NoBusyWaiting(), NothingLeft()]
