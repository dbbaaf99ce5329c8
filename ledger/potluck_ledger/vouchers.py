"""Vouchers: while a lease runs, its caller signs what it has used so far, so that neither side can lose much. Pure.

The provider offers a cumulative sum every few seconds of use; the caller holds it against its own clock, keeps it, and
signs. A provider stops what nobody signs for before `UNSIGNED_MAX_US` have been used.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from potluck_ledger.entries import Voucher, read
from potluck_ledger.envelope import EnvelopeError

# How much leased time a provider ever gives without a signature, microseconds; and how much of that it waits for before
# it offers a voucher, so that there is time for the answer.
UNSIGNED_MAX_US = 5_000_000
OFFER_AFTER_US = 2_000_000
# A provider stops at this much: its clock ticks, and a stop takes a moment.
STOP_AT_US = 4_500_000
# Two clocks that differ by more than two minutes are not used together (see the lease's opening). More here: what was
# on the way for long, or clocks that drift apart while a lease runs, must not end a lease that was granted.
CLOCK_SLACK_US = 180_000_000
# An input may have begun so much earlier than its caller heard, in which time others were on the way.
LATENCY_SLACK_US = 1_000_000


@dataclass
class ProviderVouchers:
    """The provider's side of one lease. `signed_us` is what the caller owes whatever happens."""

    lease: str
    caller: str
    provider: str
    number: int = 0
    # Offered, and not signed: answers are on the way for a while. Few, since the lease ends before there are more.
    offered: dict[int, Voucher] = field(default_factory=dict)
    signed: Voucher | None = None
    # The envelope with both signatures.
    envelope: bytes = b""

    @property
    def signed_us(self) -> int:
        return self.signed.lease_us if self.signed else 0

    @property
    def _offered_us(self) -> int:
        return self.offered[self.number].lease_us if self.number in self.offered else self.signed_us

    def reckon(self, used_us: int, now_us: int) -> Voucher | None:
        """`used_us` were used so far: the voucher that is to be offered, if one is."""
        if used_us - self._offered_us < OFFER_AFTER_US:
            return None
        self.number += 1
        voucher = Voucher(self.lease, self.caller, self.provider, self.number, used_us, now_us)
        self.offered[self.number] = voucher
        return voucher

    def must_stop(self, used_us: int) -> bool:
        """Whether the caller has signed too little."""
        return used_us - self.signed_us >= STOP_AT_US

    def left_us(self, used_us: int) -> int:
        """How much more may be used before something is due: a voucher, or a stop."""
        return max(1, min(self._offered_us + OFFER_AFTER_US, self.signed_us + STOP_AT_US) - used_us)

    def answered(self, envelope: bytes) -> str:
        """The caller signed what was offered: keep it. Returns why not, or ""."""
        try:
            voucher = read(envelope, Voucher, self.provider, self.caller)
        except EnvelopeError as error:
            return str(error)
        if self.offered.get(voucher.number) != voucher:
            return "what was signed was not offered, or is signed already"
        self.signed, self.envelope = voucher, envelope
        self.offered = {number: each for number, each in self.offered.items() if number > voucher.number}
        return ""


@dataclass
class CallerVouchers:
    """The caller's side of one lease: what it signed last."""

    lease: str
    caller: str
    provider: str
    last: Voucher | None = None

    def check(self, envelope: bytes, bound_us: int, now_us: int) -> tuple[Voucher | None, str]:
        """The voucher if it may be signed, else why not. By our own clock at most `bound_us` were used."""
        try:
            voucher = read(envelope, Voucher, self.provider)
        except EnvelopeError as error:
            return None, str(error)
        return (None, why) if (why := self._objection(voucher, bound_us, now_us)) else (voucher, "")

    def _objection(self, voucher: Voucher, bound_us: int, now_us: int) -> str:
        last = self.last
        if (voucher.lease, voucher.caller, voucher.provider) != (self.lease, self.caller, self.provider):
            return "the voucher is for another lease"
        if last and (voucher.number <= last.number or voucher.lease_us < last.lease_us or voucher.at_us < last.at_us):
            return "the voucher is older than the last one"
        if abs(voucher.at_us - now_us) > CLOCK_SLACK_US:
            return "the voucher's time is not the time here"
        if voucher.lease_us > bound_us:
            return f"{voucher.lease_us} µs are claimed, at most {bound_us} µs passed here"
        return ""

    def sign(self, voucher: Voucher) -> None:
        """It is kept, and about to be signed."""
        self.last = voucher
