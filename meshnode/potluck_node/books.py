"""What each side of a lease signs and keeps, in which order: kept before the other side learns of it. The simulator
keeps its books with the same code."""

from __future__ import annotations

from collections.abc import Callable

from potluck.wire import FunctionSpec
from potluck_ledger.entries import DIGEST_BYTES, NOTE_MAX, Dispute, Voucher, cut, read_receipt, sign
from potluck_ledger.envelope import Envelope, EnvelopeError, countersign, open_envelope
from potluck_ledger.journal import Journal, Problem, digest
from potluck_ledger.keys import PrivateKey
from potluck_ledger.vouchers import CallerVouchers
from potluck_node.core.provider_events import SettleLease
from potluck_node.core.receipts import CallerMeter, better, objection

# Why a caller disputes what it has signed itself.
SLACK_USED = "less passed here than was signed for"
# Vouchers of a lease that wait for the disk: one comes each two seconds of use, of all inputs that run together.
VOUCHERS_WAITING_MAX = 8

# Does something that writes to the journal, in the order of asking, and then says what came of it: when it is on disk.
Keep = Callable[[Callable[[], None], Callable[[Problem], None]], None]
# What we signed, or b"" and why not.
Answer = Callable[[bytes, str], None]


def at_once(journal: Journal) -> Keep:
    """Waits for the disk there and then."""

    def keep(write: Callable[[], None], then: Callable[[Problem], None]) -> None:
        (problem,) = journal.together([write])
        journal.count()
        then(problem)

    return keep


class CallerBooks:
    """The caller's side of one lease. `meter` is its own account of it."""

    def __init__(
        self, key: PrivateKey, journal: Journal, keep: Keep, lease: str, provider: str, function: FunctionSpec
    ) -> None:
        self._key, self._journal, self._keep, self._lease, self._provider = key, journal, keep, lease, provider
        self._function, self.meter = function, CallerMeter()
        self._vouchers = CallerVouchers(lease, key.peer, provider)
        self._is_receipted = False
        self._waiting = 0
        # Whether the provider has claimed more than we saw.
        self.overbilled = False

    def voucher(self, data: bytes, now_us: int, answer: Answer) -> None:
        """The voucher with our signature, if it fits our own clock."""
        voucher, why = self._checked(data, now_us)
        if voucher is None:
            answer(b"", why)
            return
        signed = countersign(self._key, open_envelope(data, Voucher.KIND)).encode()
        # Before it is kept: what comes meanwhile has to be newer.
        self._vouchers.sign(voucher)
        self._waiting += 1

        def kept(problem: Problem) -> None:
            self._waiting -= 1
            answer(b"" if problem else signed, str(problem or ""))

        self._keep(lambda: self._journal.hold(signed), kept)

    def _checked(self, data: bytes, now_us: int) -> tuple[Voucher | None, str]:
        if self._is_receipted:
            return None, "the receipt of this lease is signed already"
        if self._waiting >= VOUCHERS_WAITING_MAX:
            return None, "those before wait for the disk here"
        found = self._vouchers.check(data, self.meter.bound_us(now_us), now_us)
        self.overbilled |= found[0] is None
        return found

    def receipt(self, data: bytes, now_us: int, answer: Answer) -> None:
        """The receipt with our signature, if it fits our own figures and is the first."""
        try:
            envelope = self._agreed(data)
        except EnvelopeError as error:
            self.overbilled = True
            answer(b"", str(error))
            return
        signed = countersign(self._key, envelope).encode()
        self._is_receipted = True

        def kept(problem: Problem) -> None:
            self._is_receipted = problem is None
            answer(b"" if problem else signed, str(problem or ""))

        self._keep(lambda: _append(self._journal, signed, now_us), kept)

    def _agreed(self, data: bytes) -> Envelope:
        """Raises `EnvelopeError` with what we have against it."""
        if self._is_receipted:
            raise EnvelopeError("a receipt of this lease is signed already")
        envelope, receipt = read_receipt(data)
        if why := objection(receipt, self._lease, self._key.peer, self._provider, self._function, self.meter):
            raise EnvelopeError(why)
        return envelope

    def over(self, now_us: int, then: Callable[[Problem], None]) -> None:
        """The lease is gone; without a receipt it leaves what we signed of it, and what we say to that when it was more
        than passed here in the end: a voucher has a second's slack for each input."""
        seen_us = self.meter.bound_us(now_us)

        def write() -> None:
            signed_us = self._journal.release(self._lease, now_us)
            if signed_us > seen_us:
                parties = (self._key.peer, self._provider, self._lease)
                dispute = Dispute(*parties, seen_us, signed_us, now_us, bytes(DIGEST_BYTES), SLACK_USED)
                self._journal.append(sign(self._key, dispute).encode(), now_us)

        self._keep(write, then)


def _append(journal: Journal, content: bytes, now_us: int) -> None:
    journal.append(content, now_us)


def settle(key: PrivateKey, journal: Journal, action: SettleLease, ours: bytes, theirs: bytes, now_us: int) -> None:
    """The provider's side at the end: keep the receipt; where the caller did not sign it, with what it did sign, and
    what we say to that. `theirs` is what came back. Raises `JournalError`."""
    best = better(ours, theirs)
    if best is not ours:
        # First: whoever dies in between still has the voucher, which counts for nothing beside the receipt.
        journal.append(best, now_us)
        journal.release(action.lease, now_us)
        return
    signed_us = journal.release(action.lease, now_us)
    journal.append(ours, now_us)
    claimed_us = action.meter.run_us
    if claimed_us > signed_us:
        parties = (key.peer, action.caller, action.lease)
        evidence, reason = digest(ours), cut(action.reason, NOTE_MAX)
        dispute = Dispute(*parties, claimed_us, signed_us, now_us, evidence, reason)
        journal.append(sign(key, dispute).encode(), now_us)
