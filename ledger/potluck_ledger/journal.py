"""A node's journal: an append-only, signed hash chain in SQLite. One writer, the node; anyone may read."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from potluck_ledger import opening
from potluck_ledger.balance import Accounts
from potluck_ledger.database import Database, connect
from potluck_ledger.entries import (
    Checkpoint,
    Content,
    Entry,
    Receipt,
    Voucher,
    parsed,
    parties,
    read,
    read_content,
    read_voucher,
    sign,
)
from potluck_ledger.envelope import Envelope, EnvelopeError
from potluck_ledger.keys import PrivateKey

GENESIS = bytes(32)
# Owners of whose journals a node is a witness, 100 bytes each: one of them cannot be forgotten to make room.
COSIGNED_MAX = 10_000
# Opening verifies so many entries at most, and those since the last time, before it notes how far it came: a third of a
# second.
NOTED_EVERY = 1_000
NOTHING_BEFORE = opening.Note(0, GENESIS)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    sequence INTEGER PRIMARY KEY,
    digest BLOB NOT NULL,
    envelope BLOB NOT NULL,
    content BLOB NOT NULL,
    content_digest BLOB NOT NULL UNIQUE
) STRICT;
CREATE TABLE IF NOT EXISTS vouchers (
    lease TEXT NOT NULL, number INTEGER NOT NULL, envelope BLOB NOT NULL, PRIMARY KEY (lease)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS proofs (owner TEXT PRIMARY KEY, proof BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cosigned (
    owner TEXT PRIMARY KEY, sequence INTEGER NOT NULL, head BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS witnessed (one INTEGER PRIMARY KEY CHECK (one = 1), checkpoint BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS opened (
    one INTEGER PRIMARY KEY CHECK (one = 1), note BLOB NOT NULL, sums BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS leases (
    peer TEXT NOT NULL, lease TEXT NOT NULL, settled INTEGER NOT NULL, PRIMARY KEY (peer, lease)
) STRICT, WITHOUT ROWID;
"""


class JournalError(Exception):
    """The journal does not verify, and at which entry; or it cannot be written."""


class Record(NamedTuple):
    """One line of a journal: the envelope of an entry, and that of what it records."""

    entry: bytes
    content: bytes


def digest(data: bytes) -> bytes:
    """BLAKE3, 32 bytes."""
    return blake3(data).digest()


# What a write of several can end with: the reason why it is not kept, or None.
Problem = EnvelopeError | JournalError | None


class _Kept(NamedTuple):
    """A new entry that is on disk, and does not count yet."""

    head: tuple[int, bytes]
    envelope: Envelope
    content: Content


class Journal:
    """`path` is the database; `key` signs new entries and names the owner. `accounts` is the balance with each peer.

    Opening verifies every entry, those that were before by their digests (`opening`). Raises `JournalError` when one
    does not hold. Tests give another `connect`.
    All is for one thread, but for `together`.
    """

    def __init__(self, path: Path, key: PrivateKey, connect: Callable[[Path], sqlite3.Connection] = connect) -> None:
        self._key = key
        try:
            self._db = Database(path, _SCHEMA, connect)
        except sqlite3.Error as error:
            raise JournalError(f"{path} cannot be opened: {error}") from None
        self.accounts = Accounts(key.peer)
        self.blocked = ""
        self._head = (0, GENESIS)
        # Of the transaction that is open; and what is on disk since, until `count`.
        self._fresh: list[_Kept] = []
        self._uncounted: deque[_Kept] = deque()
        try:
            self._load()
        except BaseException:
            self._db.close()
            raise

    def _load(self) -> None:
        with self._transaction():
            # A journal of an earlier version has not noted its leases.
            is_noted = self._db.read("SELECT 1 FROM leases LIMIT 1").fetchone() is not None
            note = self._verified_before()
            for entry in follow(self.owner, *note, self._whole_rows(note.sequence)):
                self.accounts.record(entry.envelope, entry.content)
                if not is_noted:
                    self._note_lease(entry.envelope, entry.content)
            self._head = self._tip()
            if self._head[0] - note.sequence >= NOTED_EVERY:
                noted = opening.write(self._key, opening.Note(*self._head), self.accounts)
                self._db.write("INSERT OR REPLACE INTO opened VALUES (1, ?, ?)", *noted)

    def _verified_before(self) -> opening.Note:
        """How far this node has verified these very entries, whose sums are in the accounts then. Raises
        `JournalError`."""
        found = self._db.read("SELECT note, sums FROM opened").fetchone()
        try:
            note = opening.read(self.owner, *map(bytes, found)) if found else NOTHING_BEFORE
        except EnvelopeError:
            # It is of no use, and all is verified anew.
            return NOTHING_BEFORE
        try:
            settled = opening.check(self.owner, note, self._rows(0, note.sequence))
        except EnvelopeError as error:
            raise JournalError(f"this is not the journal that was verified before: {error}") from None
        if found:
            self.accounts.restore(bytes(found[1]), settled)
        return note

    def _rows(self, after: int, most: int = -1) -> Iterator[opening.Row]:
        query = "SELECT digest, envelope, content FROM entries WHERE sequence > ? ORDER BY sequence LIMIT ?"
        return (opening.Row(*map(bytes, row)) for row in self._db.read(query, after, most))

    def _whole_rows(self, after: int) -> Iterator[Record]:
        """Raises `JournalError` for an entry that others would know by another digest."""
        for row in self._rows(after):
            if row.digest != digest(row.entry):
                raise JournalError("an entry has another digest than is kept with it")
            yield Record(row.entry, row.content)

    @property
    def owner(self) -> str:
        return self._key.peer

    def digest_of(self, sequence: int) -> bytes | None:
        """That of one entry; None when there is none."""
        row = self._db.read("SELECT digest FROM entries WHERE sequence = ?", sequence).fetchone()
        return bytes(row[0]) if row else None

    def append(self, content: bytes, at_us: int) -> int:
        """Sign and store an envelope; returns its sequence number. The same content is stored once.

        It is on disk when this returns. Raises `EnvelopeError` when the content does not hold, or is not about us, and
        `JournalError` when it cannot be written; nothing is half written then.
        """
        return self.append_all([content], at_us)[0]

    def append_all(self, contents: Sequence[bytes], at_us: int) -> list[int]:
        """Like `append`, for several that wait for the disk once: all of them are kept, or none."""
        with self._transaction():
            numbers = [self._add(content, at_us) for content in contents]
        if not self._db.is_writing:
            self.count()
        return numbers

    def together(self, writes: Sequence[Callable[[], None]]) -> list[Problem]:
        """Do some that write here, in order, and wait for the disk once: each is whole or not there, and what it
        returned for each is why. In any thread; `count` has to follow in that which uses the journal else."""
        try:
            with self._transaction():
                return [self._tried(write) for write in writes]
        except JournalError as error:
            return [error] * len(writes)

    def _tried(self, write: Callable[[], None]) -> Problem:
        """Raises `JournalError` when what came before is lost as well."""
        try:
            with self._transaction():
                write()
        except (EnvelopeError, JournalError) as error:
            if self._db.is_lost:
                raise JournalError(str(error)) from None
            return error
        return None

    def count(self) -> None:
        """What is on disk counts from now on: for the head, and in the accounts."""
        while self._uncounted:
            kept = self._uncounted.popleft()
            self._head = kept.head
            self.accounts.record(kept.envelope, kept.content)

    def _add(self, content: bytes, at_us: int) -> int:
        """Its number."""
        envelope, body = self._own(content)
        self._check_whole()
        if known := self._known(content):
            return known
        head = self._chain(content, at_us)
        self._note_lease(envelope, body)
        self._fresh.append(_Kept(head, envelope, body))
        return head[0]

    def _own(self, content: bytes) -> tuple[Envelope, Content]:
        """Raises `EnvelopeError` for what is not about us."""
        envelope, body = read_content(content)
        if self.owner not in parties(body):
            raise EnvelopeError("it is between other peers")
        return envelope, body

    def _known(self, content: bytes) -> int:
        """Its number; 0 when it is new."""
        row = self._db.read("SELECT sequence FROM entries WHERE content_digest = ?", digest(content)).fetchone()
        return int(row[0]) if row else 0

    def _chain(self, content: bytes, at_us: int) -> tuple[int, bytes]:
        """Its number and digest."""
        sequence, previous = self._fresh[-1].head if self._fresh else self._tip()
        entry = Entry(sequence + 1, previous, at_us, digest(content))
        signed = sign(self._key, entry).encode()
        head = entry.sequence, digest(signed)
        self._db.write("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", *head, signed, content, entry.content)
        return head

    def _note_lease(self, envelope: Envelope, content: Content) -> None:
        if isinstance(content, Receipt | Voucher):
            (peer,) = parties(content) - {self.owner}
            is_settled = isinstance(content, Receipt) and len(envelope.signatures) == 2
            query = """
                INSERT INTO leases VALUES (?, ?, ?) ON CONFLICT (peer, lease)
                DO UPDATE SET settled = max(settled, excluded.settled)
            """
            self._db.write(query, peer, content.lease, int(is_settled))

    def knows_lease(self, peer: str, lease: str) -> bool:
        """Whether something of a peer's lease is kept: another one of that name could not be told from it."""
        is_held = self._db.read("SELECT 1 FROM vouchers WHERE lease = ?", lease).fetchone() is not None
        return is_held or self._is_settled(peer, lease) is not None

    def _is_settled(self, peer: str, lease: str) -> bool | None:
        """Whether there is a receipt of both; None when there is nothing."""
        query = "SELECT settled FROM leases WHERE peer = ? AND lease = ?"
        row = self._db.read(query, peer, lease).fetchone()
        return bool(row[0]) if row else None

    def hold(self, envelope: bytes) -> None:
        """Keep the last voucher of a lease that runs, in place of those before. It is on disk when this returns.

        Raises `EnvelopeError` for one that is not signed by both, or not ours, and `JournalError`.
        """
        voucher = read_voucher(envelope)
        self._check_whole()
        if self.owner not in parties(voucher):
            raise EnvelopeError("it is between other peers")
        query = """
            INSERT INTO vouchers VALUES (?, ?, ?) ON CONFLICT (lease)
            DO UPDATE SET number = excluded.number, envelope = excluded.envelope WHERE excluded.number > number
        """
        self._write(query, voucher.lease, voucher.number, envelope)

    def release(self, lease: str, at_us: int) -> int:
        """A lease is over: its voucher becomes an entry where it is all that is signed, and is forgotten else, also
        where a node died between keeping the receipt and this. Returns how much time such an entry is for, in
        microseconds, 0 when there is none. Raises `JournalError`."""
        with self._transaction():
            row = self._db.read("SELECT envelope FROM vouchers WHERE lease = ?", lease).fetchone()
            kept_us = self._outlive(bytes(row[0]), at_us) if row else 0
            self._db.write("DELETE FROM vouchers WHERE lease = ?", lease)
        if not self._db.is_writing:
            self.count()
        return kept_us

    def _outlive(self, envelope: bytes, at_us: int) -> int:
        """What a lease's voucher becomes."""
        _, voucher = parsed(envelope)
        assert isinstance(voucher, Voucher), "what is held are vouchers"
        (peer,) = parties(voucher) - {self.owner}
        if self._is_settled(peer, voucher.lease):
            return 0
        self.append(envelope, at_us)
        return voucher.lease_us

    def held(self) -> list[str]:
        """Leases of which there is a voucher: they were running when the node died."""
        return [str(lease) for (lease,) in self._db.read("SELECT lease FROM vouchers ORDER BY lease")]

    def vouchers(self) -> Iterator[bytes]:
        """The envelopes of these, as of now."""
        rows = self._db.read("SELECT envelope FROM vouchers ORDER BY lease").fetchall()
        return (bytes(envelope) for (envelope,) in rows)

    def keep_proof(self, owner: str, proof: bytes) -> None:
        """Keep the first proof that somebody keeps two journals. Raises `JournalError`."""
        self._write("INSERT OR IGNORE INTO proofs VALUES (?, ?)", owner, proof)

    def proofs(self) -> list[bytes]:
        """All of them."""
        return [bytes(proof) for (proof,) in self._db.read("SELECT proof FROM proofs ORDER BY owner")]

    def cosigned(self, owner: str) -> tuple[int, bytes] | None:
        """The number and digest of the head of an owner's journal that we cosigned last."""
        query = "SELECT sequence, head FROM cosigned WHERE owner = ?"
        row = self._db.read(query, owner).fetchone()
        return (int(row[0]), bytes(row[1])) if row else None

    def keep_cosigned(self, owner: str, sequence: int, head: bytes) -> None:
        """Before we cosign it. It is on disk when this returns. Raises `JournalError`, also when there are too many."""
        known, count = self.cosigned(owner), self._db.read("SELECT count(*) FROM cosigned").fetchone()[0]
        if known is None and count >= COSIGNED_MAX:
            raise JournalError("this node is a witness of too many")
        if known is None or known < (sequence, head):
            self._write("INSERT OR REPLACE INTO cosigned VALUES (?, ?, ?)", owner, sequence, head)

    def keep_head(self, checkpoint: bytes) -> None:
        """The last checkpoint of ours that witnesses cosigned. Raises `JournalError`."""
        self._write("INSERT OR REPLACE INTO witnessed VALUES (1, ?)", checkpoint)

    def witnessed(self) -> bytes:
        """What `keep_head` was told last; b"" before."""
        row = self._db.read("SELECT checkpoint FROM witnessed").fetchone()
        return bytes(row[0]) if row else b""

    def _write(self, query: str, *values: object) -> None:
        with self._transaction():
            self._db.write(query, *values)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of what is written, or nothing of it. Raises `JournalError`."""
        with self._db.lock:
            before = len(self._fresh)
            try:
                with self._db.transaction():
                    yield
            except sqlite3.Error as error:
                del self._fresh[before:]
                raise JournalError(f"the journal cannot be written: {error}") from None
            except BaseException:
                del self._fresh[before:]
                raise
            if not self._db.is_writing:
                self._uncounted.extend(self._fresh)
                self._fresh.clear()

    def block(self, why: str) -> None:
        """Nothing is signed from now on: it would contradict what we signed before."""
        self.blocked = why

    def _check_whole(self) -> None:
        if self.blocked:
            raise JournalError(self.blocked)

    def head(self) -> tuple[int, bytes]:
        """(sequence, digest) of the latest entry that counts; (0, 32 zero bytes) of an empty journal."""
        return self._head

    def _tip(self) -> tuple[int, bytes]:
        """The same of the latest that is written."""
        row = self._db.read("SELECT sequence, digest FROM entries ORDER BY sequence DESC LIMIT 1").fetchone()
        return (int(row[0]), bytes(row[1])) if row else (0, GENESIS)

    def checkpoint(self, at_us: int) -> Envelope:
        """A signed statement of the head and the sums, for others to keep."""
        sequence, head = self.head()
        given_us, used_us = self.accounts.totals()
        return sign(self._key, Checkpoint(self.owner, sequence, head, at_us, given_us, used_us))

    def records(self, after: int = 0, most: int = -1) -> Iterator[Record]:
        """Entries as they were signed, oldest first, from the one behind `after` on."""
        query = "SELECT envelope, content FROM entries WHERE sequence > ? ORDER BY sequence LIMIT ?"
        for entry, content in self._db.read(query, after, most):
            yield Record(bytes(entry), bytes(content))

    def close(self) -> None:
        self._db.close()


class VerifiedEntry:
    """An entry whose signatures and place in the chain hold."""

    def __init__(self, entry: Entry, envelope: Envelope, content: Content) -> None:
        self.sequence, self.at_us = entry.sequence, entry.at_us
        self.envelope, self.content = envelope, content

    @property
    def receipt(self) -> Receipt | None:
        """What it records, if that is a receipt."""
        return self.content if isinstance(self.content, Receipt) else None

    @property
    def countersigned(self) -> bool:
        return len(self.envelope.signatures) == 2


def follow(
    owner: str, sequence: int, previous: bytes, records: Iterable[Record], *, partly: bool = False
) -> Iterator[VerifiedEntry]:
    """Check the entries behind one of a sequence number and digest: every signature, the chain, and what is recorded.
    With `partly`, entries without what they record (b"") are checked alone, and left out. Raises `JournalError`."""
    for record in records:
        sequence += 1
        is_hidden = partly and not record.content
        try:
            entry = read(record.entry, Entry, owner)
            read_now = None if is_hidden else read_content(record.content)
        except EnvelopeError as error:
            raise JournalError(f"entry {sequence} of {owner}: {error}") from None
        if entry.sequence != sequence or entry.previous != previous:
            raise JournalError(
                f"entry {sequence} of {owner} does not follow the one before: something was cut or added"
            )
        previous = digest(record.entry)
        if read_now is None:
            continue
        envelope, content = read_now
        if entry.content != digest(record.content):
            raise JournalError(f"entry {sequence} of {owner} records something else than is shown")
        if owner not in parties(content):
            raise JournalError(f"entry {sequence} of {owner} is about other peers")
        yield VerifiedEntry(entry, envelope, content)


def verify(owner: str, records: Iterable[Record], *, partly: bool = False) -> list[VerifiedEntry]:
    """Check a whole journal, as `follow`. Raises `JournalError`."""
    return list(follow(owner, 0, GENESIS, records, partly=partly))
