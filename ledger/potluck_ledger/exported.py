"""Journals as files, and whether two of them agree."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Sequence

from potluck_ledger.entries import Receipt
from potluck_ledger.envelope import EnvelopeError
from potluck_ledger.journal import JournalError, Record, VerifiedEntry, digest
from potluck_ledger.witness import read_cosigned

FORMAT = 2


def export_lines(owner: str, records: Iterable[Record], witnessed: bytes = b"") -> Iterator[str]:
    """The journal as JSON lines: a header, with the last checkpoint that witnesses cosigned, then one entry a line;
    base64."""
    checkpoint = {"checkpoint": _text(witnessed)} if witnessed else {}
    yield json.dumps({"journal": owner, "format": FORMAT} | checkpoint)
    for record in records:
        yield json.dumps({"entry": _text(record.entry), "content": _text(record.content)})


def import_lines(lines: Iterable[str]) -> tuple[str, list[Record]]:
    """Read what `export_lines` wrote. Raises `JournalError`; nothing is verified yet."""
    try:
        first, *rest = [json.loads(line) for line in lines if line.strip()]
        if first["format"] != FORMAT:
            raise JournalError(f"an exported journal of format {first['format']}; this version reads {FORMAT}")
        return str(first["journal"]), [Record(_bytes(row["entry"]), _bytes(row["content"])) for row in rest]
    except (ValueError, KeyError, TypeError) as error:
        raise JournalError(f"not an exported journal: {error}") from None


def import_witnessed(lines: Iterable[str]) -> bytes:
    """The checkpoint in the header; b"" where there is none. Raises `JournalError`."""
    try:
        return _bytes(json.loads(next(iter(lines))).get("checkpoint", ""))
    except (ValueError, TypeError, AttributeError, StopIteration) as error:
        raise JournalError(f"not an exported journal: {error}") from None


def check_witnessed(owner: str, checkpoint: bytes, entries: Sequence[bytes]) -> tuple[int, list[str]]:
    """Up to which of its verified entries (their envelopes) a journal was cosigned, and by whom.

    Raises `JournalError`.
    """
    try:
        statement, witnesses = read_cosigned(checkpoint, owner)
    except EnvelopeError as error:
        raise JournalError(f"the checkpoint of {owner}: {error}") from None
    number = statement.sequence
    if not 0 < number <= len(entries) or digest(entries[number - 1]) != statement.head:
        raise JournalError(f"the checkpoint of {owner} names another history than its journal")
    return number, witnesses


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def compare(one: tuple[str, list[VerifiedEntry]], other: tuple[str, list[VerifiedEntry]]) -> list[str]:
    """What two verified journals do not agree on, in words; empty when they agree about every shared lease."""
    (owner, entries), (peer, peer_entries) = one, other
    shared = {receipt.lease: receipt for receipt in _between(entries, owner, peer)}
    theirs = {receipt.lease: receipt for receipt in _between(peer_entries, owner, peer)}
    problems = [
        f"lease {lease}: the two receipts differ"
        for lease in shared
        if theirs.get(lease, shared[lease]) != shared[lease]
    ]
    problems += [f"lease {lease}: only {owner} has it" for lease in shared.keys() - theirs.keys()]
    problems += [f"lease {lease}: only {peer} has it" for lease in theirs.keys() - shared.keys()]
    return sorted(problems)


def _between(entries: Iterable[VerifiedEntry], one: str, other: str) -> Iterator[Receipt]:
    for entry in entries:
        receipt = entry.receipt
        if receipt and {receipt.caller, receipt.provider} == {one, other}:
            yield receipt
