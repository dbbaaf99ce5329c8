"""The node's journal, verified here, as the ledger's page shows it. Loaded when that page is first in sight."""

from __future__ import annotations

from collections.abc import Sequence

from potluck.errors import LedgerError
from potluck_ledger.entries import Receipt
from potluck_ledger.journal import JournalError, Record, verify
from potluck_ledger.report import summed
from potluck_tui.model import Row
from potluck_tui.pages import Books
from potluck_tui.words import PEER_TAIL, bar, counted, duration, plain, when

# The newest of what may be thousands; `potluck ledger list` has all.
RECEIPTS, DAYS = 50, 14
BAR_WIDTH = 12


def make_books(owner: str, records: Sequence[Record]) -> Books:
    """Raises `LedgerError` naming the entry that does not hold."""
    try:
        entries = verify(owner, records)
    except JournalError as error:
        raise LedgerError("The journal does not verify.", why=str(error), fix="Restore it from a backup.") from None
    receipts = [(entry.receipt, entry.countersigned) for entry in entries if entry.receipt]
    days = summed(owner, "day", receipts)[-DAYS:]
    most = max((max(day.given_us, day.used_us) for day in days), default=0)
    return Books(
        f"{counted(len(entries), 'entry', 'entries')}: every signature and the chain hold",
        tuple(_day(day.name, day.given_us, day.used_us, most) for day in reversed(days)),
        tuple(_receipt(owner, *each) for each in reversed(receipts[-RECEIPTS:])),
    )


def _day(name: str, given_us: int, used_us: int, most_us: int) -> Row:
    given, used = (bar(each, most_us, BAR_WIDTH) for each in (given_us, used_us))
    return name, given, duration(given_us), used, duration(used_us)


def _receipt(owner: str, receipt: Receipt, is_whole: bool) -> Row:
    gave = receipt.provider == owner
    peer = receipt.caller if gave else receipt.provider
    inputs, leased = counted(receipt.inputs, "input"), duration(receipt.lease_us)
    signed = "by both" if is_whole else "by one"
    way = "gave" if gave else "used"
    return when(receipt.ended_us), way, plain(peer[-PEER_TAIL:]), plain(receipt.label), inputs, leased, signed
