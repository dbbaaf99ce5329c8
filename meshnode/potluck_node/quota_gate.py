"""The provider's side of quotas: who may begin a lease, and which lease has to end. See docs/decisions/quotas.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from potluck.wire import FunctionSpec
from potluck.wire.accounts import RUNNING_MAX, RunningLease
from potluck.wire.lease import LeaseRefused
from potluck.wire.offer import GpuOffer
from potluck_ledger.entries import PRIORITY_ZERO, Voucher, parsed
from potluck_ledger.house_rules import Here
from potluck_ledger.journal import Journal
from potluck_ledger.usage import Running, What
from potluck_node.clock import Clock
from potluck_node.core.quotas import refusal, reserved, what_runs
from potluck_node.core.room import Cap
from potluck_node.lab import Lab

# How long a share that was reckoned is used, and for how many callers it is remembered: as many as hold leases.
SHARE_LIFE_US, SHARES_MAX = 1_000_000, 1000
# The most that a share counts, and what a step of priority is worth: more than any share. The owner is before all.
FULL_MAX, STEP = 1999, 2000
OWNER_SHARE = -PRIORITY_ZERO * STEP - 1


@dataclass(slots=True)
class _Open:
    caller: str
    what: What
    used_us: int = 0


class QuotaGate:
    """Lets everybody pass where the owner has named no admins. `gpus` are those that are lent here."""

    def __init__(
        self,
        lab: Lab,
        journal: Journal,
        clock: Clock,
        name: str,
        deficit_s: float,
        gpus: Callable[[], tuple[GpuOffer, ...]],
        labels: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self._lab, self._journal, self._clock, self._name, self._gpus = lab, journal, clock, name, gpus
        self._here = Here(journal.owner, name, labels)
        self._deficit_us = round(deficit_s * 1e6)
        self._open: dict[str, _Open] = {}
        # With when they were reckoned: each event of the provider asks for some.
        self._shares: dict[str, tuple[int, int]] = {}

    def opens(self, lease: str, caller: str, spec: FunctionSpec) -> LeaseRefused | None:
        """Why a caller may not begin a lease now; None when it may, and has."""
        if not self._lab.admins or caller == self._journal.owner:
            return None
        self._lab.catch_up()
        what = what_runs(spec, self._gpus())
        refused = self._refusal(caller, what)
        if refused is None:
            self._open[lease] = _Open(caller, what)
        return refused

    def used(self, lease: str, used_us: int) -> LeaseRefused | None:
        """A lease has used so much by now; why it has to end, if so."""
        found = self._open.get(lease)
        if found is None:
            return None
        found.used_us = used_us
        self._lab.catch_up()
        self._tell()
        return self._refusal(found.caller, found.what, running=True)

    def _refusal(self, caller: str, what: What, *, running: bool = False) -> LeaseRefused | None:
        now_us = self._clock.now_us()
        if held := self._lab.house.reserved(caller, self._here, now_us):
            return reserved(self._name, held, now_us)
        return refusal(self._lab.quotas, self._name, caller, what, self._deficit_us, now_us, running=running)

    def closed(self, lease: str) -> None:
        """Its receipt counts from now on."""
        if self._open.pop(lease, None):
            self._lab.catch_up()
            self._tell()

    def _tell(self) -> None:
        leases = [Running(name, each.caller, each.what, each.used_us) for name, each in self._open.items()]
        self._lab.usage.running(self._journal.owner, leases)

    def share(self, caller: str) -> int:
        """As `potluck_ledger.quotas.Quotas.share`, at most `FULL_MAX`, and so much less for each step of priority; the
        owner of this node comes first, and all are alike without admins."""
        if not self._lab.admins:
            return 0
        if caller == self._journal.owner:
            return OWNER_SHARE
        now_us = self._clock.now_us()
        at_us, share = self._shares.get(caller, (0, 0))
        if not at_us <= now_us < at_us + SHARE_LIFE_US or not at_us:
            priority = self._lab.house.priority(caller, self._here, now_us)
            share = min(self._lab.quotas.share(caller, now_us), FULL_MAX) - priority * STEP
            if len(self._shares) >= SHARES_MAX:
                self._shares.clear()
            self._shares[caller] = now_us, share
        return share

    def caps(self, caller: str) -> list[Cap]:
        """What a caller and those of its group may have here at once."""
        if not self._lab.admins or caller == self._journal.owner:
            return []
        found = self._lab.house.limits(caller, self._here, self._clock.now_us())
        return [Cap(rule.name, who, rule.cpu_milli, rule.gpus) for rule, who in found]

    def running(self) -> tuple[RunningLease, ...]:
        """What our open leases have signed for, for others to know."""
        told = []
        for envelope in self._journal.vouchers() if self._open else ():
            _, voucher = parsed(envelope)
            found = self._open.get(voucher.lease) if isinstance(voucher, Voucher) else None
            if found:
                told.append(RunningLease(envelope, found.what.app, found.what.model))
        return tuple(told[:RUNNING_MAX])
