"""Journals as files, and whether two of them agree."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator

from potluck_ledger.entries import Receipt
from potluck_ledger.journal import JournalError, Record, VerifiedEntry

FORMAT = 2


def export_lines(owner: str, records: Iterable[Record]) -> Iterator[str]:
    """The journal as JSON lines: a header, then one entry a line, base64."""
    yield json.dumps({"journal": owner, "format": FORMAT})
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
