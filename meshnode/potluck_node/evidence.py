"""Evidence on disk: how inputs were decided, and what is known of each peer. SQLite, one writer, the node."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

import msgspec

from potluck.errors import InvalidError
from potluck.wire.verify import EVIDENCE_MAX, EvidenceFacts
from potluck_node.core.reputation import Record

# The newest are kept: at 1 KiB each 20 MiB, and weeks of calls. Looked at every so many.
KEPT_MAX, PRUNE_EVERY = 20_000, 256

_SCHEMA = """
CREATE TABLE IF NOT EXISTS evidence (number INTEGER PRIMARY KEY, peers TEXT NOT NULL, body BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS records (peer TEXT PRIMARY KEY, body BLOB NOT NULL) STRICT, WITHOUT ROWID;
"""


class EvidenceStore:
    """Raises `InvalidError` when the file cannot be used."""

    def __init__(self, path: Path) -> None:
        try:
            path.touch(mode=0o600)
            self._db = sqlite3.connect(path, isolation_level=None)
            # NORMAL: what a power cut takes is a verdict or two, which come again.
            self._db.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; {_SCHEMA}")
        except (sqlite3.Error, OSError) as error:
            raise InvalidError(f"{path} cannot be used.", why=str(error), fix="Move it away.") from None

    def close(self) -> None:
        self._db.close()

    def records(self) -> dict[str, Record]:
        """What is known of peers. One that cannot be read is forgotten."""
        found = {}
        for peer, body in self._db.execute("SELECT peer, body FROM records"):
            try:
                found[peer] = msgspec.msgpack.decode(body, type=Record)
            except msgspec.DecodeError:
                continue
        return found

    def keep(self, records: Iterable[tuple[str, Record]]) -> None:
        """Raises `sqlite3.Error`."""
        rows = [(peer, msgspec.msgpack.encode(record)) for peer, record in records]
        self._db.executemany("INSERT OR REPLACE INTO records VALUES (?, ?)", rows)

    def add(self, evidence: EvidenceFacts) -> None:
        """Raises `sqlite3.Error`."""
        peers = " ".join(vote.peer for vote in evidence.votes)
        body = msgspec.msgpack.encode(evidence)
        done = self._db.execute("INSERT INTO evidence (peers, body) VALUES (?, ?)", (peers, body))
        if (done.lastrowid or 0) % PRUNE_EVERY == 0:
            self._db.execute("DELETE FROM evidence WHERE number <= ?", ((done.lastrowid or 0) - KEPT_MAX,))

    def newest(self, peer: str = "") -> tuple[EvidenceFacts, ...]:
        """Of one peer, or all."""
        rows = self._db.execute(
            "SELECT body FROM evidence WHERE instr(peers, ?) ORDER BY number DESC LIMIT ?", (peer, EVIDENCE_MAX)
        )
        return tuple(msgspec.msgpack.decode(body, type=EvidenceFacts) for (body,) in rows)
