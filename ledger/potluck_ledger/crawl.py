"""Journals as peers show them to an audit, beside what was heard of them before. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from potluck_ledger.audit import Finding
from potluck_ledger.entries import Dispute
from potluck_ledger.envelope import EnvelopeError
from potluck_ledger.forks import prove, tell
from potluck_ledger.journal import JournalError, Record, VerifiedEntry, digest, verify
from potluck_ledger.witness import read_cosigned

# Leases that ended so shortly before the first journal was asked for are not compared: its caller signs a receipt
# before its provider has it back, and their clocks differ. Microseconds.
FRESH_US = 10_000_000


class Shown(NamedTuple):
    """One journal. `problem` says why there are no entries to audit; "" where they hold. `proof` is that of a fork,
    where it shows one. Of `hidden` entries it does not show what they record: they are between others."""

    owner: str
    entries: list[VerifiedEntry]
    problem: str = ""
    findings: tuple[Finding, ...] = ()
    proof: bytes = b""
    hidden: int = 0


def examine(owner: str, records: Sequence[Record], checkpoint: bytes = b"") -> Shown:
    """Verify a journal that was asked for after `checkpoint` was heard, the owner's own; b"" where none was."""
    hidden = sum(not record.content for record in records)
    try:
        entries = verify(owner, records, partly=True)
        found = _compared(owner, records, entries, checkpoint) if checkpoint else Shown(owner, entries)
        return found._replace(hidden=hidden)
    except (JournalError, EnvelopeError) as error:
        return Shown(owner, [], str(error))


def _compared(owner: str, records: Sequence[Record], entries: list[VerifiedEntry], checkpoint: bytes) -> Shown:
    """Raises `EnvelopeError` for a checkpoint of somebody else."""
    stated, _ = read_cosigned(checkpoint, owner)
    if not stated.sequence:
        return Shown(owner, entries)
    if not records:
        return Shown(owner, [], f"it shows none of its {stated.sequence} entries")
    if len(records) < stated.sequence:
        text = f"{owner} shows {len(records)} entries, and signed that there are {stated.sequence}"
        return Shown(owner, entries, findings=(Finding("withheld", text),))
    last = records[stated.sequence - 1].entry
    if digest(last) == stated.head:
        return Shown(owner, entries)
    proof = prove(checkpoint, last).encode()
    return Shown(owner, entries, findings=(Finding("fork", tell(proof)),), proof=proof)


def settled(entries: Sequence[VerifiedEntry], began_us: int) -> list[VerifiedEntry]:
    """Without leases that ended, and disputes that were written, since the first journal was asked for (Unix
    microseconds): the other side may not have been able to show them."""
    return [entry for entry in entries if _at_us(entry) < began_us - FRESH_US]


def _at_us(entry: VerifiedEntry) -> int:
    if entry.receipt:
        return entry.receipt.ended_us
    return entry.at_us if isinstance(entry.content, Dispute) else 0
