"""What each side of a lease signs and keeps, in which order: kept before the other side learns of it. The simulator
keeps its books with the same code."""

from __future__ import annotations

from potluck.wire import FunctionSpec
from potluck_ledger.entries import DIGEST_BYTES, NOTE_MAX, Dispute, Voucher, cut, read_receipt, read_voucher, sign
from potluck_ledger.envelope import EnvelopeError, countersign, open_envelope
from potluck_ledger.journal import Journal, JournalError, digest
from potluck_ledger.keys import PrivateKey
from potluck_ledger.vouchers import CallerVouchers
from potluck_node.core.provider_events import SettleLease
from potluck_node.core.receipts import CallerMeter, better, objection

# Why a caller disputes what it has signed itself.
SLACK_USED = "less passed here than was signed for"


class CallerBooks:
    """The caller's side of one lease. `meter` is its own account of it."""

    def __init__(self, key: PrivateKey, journal: Journal, lease: str, provider: str, function: FunctionSpec) -> None:
        self._key, self._journal, self._lease, self._provider = key, journal, lease, provider
        self._function, self.meter = function, CallerMeter()
        self._vouchers = CallerVouchers(lease, key.peer, provider)
        self._is_receipted = False

    def voucher(self, data: bytes, now_us: int) -> tuple[bytes, str]:
        """The voucher with our signature, if it fits our own clock; else b"" and why not."""
        if self._is_receipted:
            return b"", "the receipt of this lease is signed already"
        voucher, why = self._vouchers.check(data, self.meter.bound_us(now_us), now_us)
        if voucher is None:
            return b"", why
        signed = countersign(self._key, open_envelope(data, Voucher.KIND)).encode()
        try:
            self._journal.hold(signed)
        except JournalError as error:
            return b"", str(error)
        self._vouchers.sign(voucher)
        return signed, ""

    def receipt(self, data: bytes, now_us: int) -> tuple[bytes, str]:
        """The receipt with our signature, if it fits our own figures and is the first; else b"" and why not."""
        if self._is_receipted:
            return b"", "a receipt of this lease is signed already"
        try:
            envelope, receipt = read_receipt(data)
            why = objection(receipt, self._lease, self._key.peer, self._provider, self._function, self.meter)
        except EnvelopeError as error:
            why = str(error)
        if why:
            return b"", why
        signed = countersign(self._key, envelope).encode()
        try:
            self._journal.append(signed, now_us)
        except JournalError as error:
            return b"", str(error)
        self._is_receipted = True
        return signed, ""

    def over(self, now_us: int) -> None:
        """The lease is gone; without a receipt it leaves what we signed of it, and what we say to that when it was more
        than passed here in the end: a voucher has a second's slack for each input. Raises `JournalError`."""
        self._journal.release(self._lease, now_us, keep=not self._is_receipted)
        signed_us = self._vouchers.last.lease_us if self._vouchers.last else 0
        seen_us = self.meter.bound_us(now_us)
        if not self._is_receipted and signed_us > seen_us:
            dispute = Dispute(
                self._key.peer, self._provider, self._lease, seen_us, signed_us, now_us, bytes(DIGEST_BYTES), SLACK_USED
            )  # fmt: skip
            self._journal.append(sign(self._key, dispute).encode(), now_us)


def settle(key: PrivateKey, journal: Journal, action: SettleLease, ours: bytes, theirs: bytes, now_us: int) -> None:
    """The provider's side at the end: keep the receipt; where the caller did not sign it, with what it did sign, and
    what we say to that. `theirs` is what came back. Raises `JournalError`."""
    best = better(ours, theirs)
    if best is not ours:
        # First: whoever dies in between still has the voucher, which counts for nothing beside the receipt.
        journal.append(best, now_us)
        journal.release(action.lease, now_us, keep=False)
        return
    journal.release(action.lease, now_us, keep=True)
    journal.append(ours, now_us)
    signed_us = read_voucher(action.voucher).lease_us if action.voucher else 0
    claimed_us = action.meter.run_us
    if claimed_us > signed_us:
        parties = (key.peer, action.caller, action.lease)
        evidence, reason = digest(ours), cut(action.reason, NOTE_MAX)
        dispute = Dispute(*parties, claimed_us, signed_us, now_us, evidence, reason)
        journal.append(sign(key, dispute).encode(), now_us)
