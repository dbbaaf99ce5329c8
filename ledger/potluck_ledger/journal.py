"""A node's journal: an append-only, signed hash chain in SQLite. One writer, the node; anyone may read."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from blake3 import blake3

from potluck_ledger.balance import Accounts
from potluck_ledger.entries import ENTRY_KIND, Entry, Receipt, encode, read_entry, read_receipt
from potluck_ledger.envelope import EnvelopeError, seal
from potluck_ledger.keys import PrivateKey

GENESIS = bytes(32)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    sequence INTEGER PRIMARY KEY,
    digest BLOB NOT NULL,
    envelope BLOB NOT NULL,
    content_digest BLOB NOT NULL UNIQUE
) STRICT;
"""


class JournalError(Exception):
    """The journal does not verify, and at which entry; or it cannot be written."""


def digest(data: bytes) -> bytes:
    """BLAKE3, 32 bytes."""
    return blake3(data).digest()


class Journal:
    """`path` is the database; `key` signs new entries and names the owner. `accounts` is the balance with each peer.

    Opening verifies every entry, and raises `EnvelopeError` when one does not hold.
    """

    def __init__(self, path: Path, key: PrivateKey) -> None:
        self._key = key
        path.touch(mode=0o600)
        self._db = sqlite3.connect(path, isolation_level=None)
        # FULL: an entry that was acknowledged to a peer must survive a power cut, else we would fork our own chain.
        self._db.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; {_SCHEMA}")
        self.accounts = Accounts(key.peer, self._receipts())

    @property
    def owner(self) -> str:
        return self._key.peer

    def append(self, content: bytes, at_us: int) -> int:
        """Sign and store a receipt's envelope; returns its sequence number. The same content is stored once.

        It is on disk when this returns. Raises `EnvelopeError` when the content is not a valid receipt of ours, and
        `JournalError` when it cannot be written; nothing is half written then.
        """
        _, receipt = read_receipt(content)
        if self.owner not in (receipt.caller, receipt.provider):
            raise EnvelopeError("the receipt is between other peers")
        known = self._db.execute("SELECT sequence FROM entries WHERE content_digest = ?", (digest(content),)).fetchone()
        if known:
            return int(known[0])
        sequence, previous = self.head()
        entry = Entry(sequence + 1, previous, at_us, content)
        envelope = seal(self._key, ENTRY_KIND, encode(entry)).encode()
        row = (entry.sequence, digest(envelope), envelope, digest(content))
        try:
            self._db.execute("INSERT INTO entries VALUES (?, ?, ?, ?)", row)
        except sqlite3.Error as error:
            raise JournalError(f"the journal cannot be written: {error}") from None
        self.accounts.add(receipt)
        return entry.sequence

    def head(self) -> tuple[int, bytes]:
        """(sequence, digest) of the latest entry; (0, 32 zero bytes) of an empty journal."""
        row = self._db.execute("SELECT sequence, digest FROM entries ORDER BY sequence DESC LIMIT 1").fetchone()
        return (int(row[0]), bytes(row[1])) if row else (0, GENESIS)

    def envelopes(self) -> Iterator[bytes]:
        """All entries as they were signed, oldest first."""
        for (envelope,) in self._db.execute("SELECT envelope FROM entries ORDER BY sequence"):
            yield bytes(envelope)

    def _receipts(self) -> Iterator[Receipt]:
        for data in self.envelopes():
            yield read_receipt(read_entry(data, self.owner).content)[1]

    def close(self) -> None:
        self._db.close()


class VerifiedEntry:
    """An entry whose signatures and place in the chain hold."""

    def __init__(self, entry: Entry) -> None:
        self.sequence, self.at_us = entry.sequence, entry.at_us
        self.envelope, self.receipt = read_receipt(entry.content)

    @property
    def countersigned(self) -> bool:
        return len(self.envelope.signatures) == 2


def verify(owner: str, envelopes: Iterable[bytes]) -> list[VerifiedEntry]:
    """Check a whole journal: every signature, the chain, and each receipt. Raises `JournalError`."""
    previous, verified = GENESIS, []
    for number, data in enumerate(envelopes, start=1):
        try:
            entry = read_entry(data, owner)
            verified.append(VerifiedEntry(entry))
        except EnvelopeError as error:
            raise JournalError(f"entry {number} of {owner}: {error}") from None
        if entry.sequence != number or entry.previous != previous:
            raise JournalError(f"entry {number} of {owner} does not follow the one before: something was cut or added")
        if owner not in (verified[-1].receipt.caller, verified[-1].receipt.provider):
            raise JournalError(f"entry {number} of {owner} is about other peers")
        previous = digest(data)
    return verified


def export_lines(owner: str, envelopes: Iterable[bytes]) -> Iterator[str]:
    """The journal as JSON lines: a header, then one base64 entry a line."""
    yield json.dumps({"journal": owner, "format": 1})
    for data in envelopes:
        yield json.dumps({"entry": base64.b64encode(data).decode()})


def import_lines(lines: Iterable[str]) -> tuple[str, list[bytes]]:
    """Read what `export_lines` wrote: (owner, envelopes). Raises `JournalError`; nothing is verified yet."""
    try:
        first, *rest = [json.loads(line) for line in lines if line.strip()]
        return str(first["journal"]), [base64.b64decode(row["entry"], validate=True) for row in rest]
    except (ValueError, KeyError, TypeError) as error:
        raise JournalError(f"not an exported journal: {error}") from None


def compare(one: tuple[str, list[VerifiedEntry]], other: tuple[str, list[VerifiedEntry]]) -> list[str]:
    """What two verified journals do not agree on, in words; empty when they agree about every shared lease."""
    (owner, entries), (peer, peer_entries) = one, other
    shared: dict[str, Receipt] = {e.receipt.lease: e.receipt for e in entries if _between(e.receipt, owner, peer)}
    theirs: dict[str, Receipt] = {e.receipt.lease: e.receipt for e in peer_entries if _between(e.receipt, owner, peer)}
    problems = [
        f"lease {lease}: the two receipts differ"
        for lease in shared
        if theirs.get(lease, shared[lease]) != shared[lease]
    ]
    problems += [f"lease {lease}: only {owner} has it" for lease in shared.keys() - theirs.keys()]
    problems += [f"lease {lease}: only {peer} has it" for lease in theirs.keys() - shared.keys()]
    return sorted(problems)


def _between(receipt: Receipt, one: str, other: str) -> bool:
    return {receipt.caller, receipt.provider} == {one, other}
