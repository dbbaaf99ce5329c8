"""The index of a disk store: which chunk lies where in which pack. SQLite in WAL mode, shared by processes.

It only ever names records that are durable. Lost or damaged, it is made anew from the packs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from potluck_images.packfile import HEADER, Record, store_full

# Another process holds the write lock for one commit, milliseconds; this long only when the disk stalls.
BUSY_TIMEOUT_S = 30.0

# SQLite's default limit on variables is 32,766; far fewer keep each statement short.
_IN_MAX = 500

_SCHEMA = """
CREATE TABLE IF NOT EXISTS packs (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, end INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS chunks (
    digest BLOB PRIMARY KEY, pack INTEGER NOT NULL, offset INTEGER NOT NULL, frame_size INTEGER NOT NULL
) WITHOUT ROWID;
"""


class Index:
    """Not thread-safe: the store calls it under its lock."""

    def __init__(self, path: Path) -> None:
        try:
            self._db = _open(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise store_full(error) if _is_full(error) else error from None
            _move_aside(path)
            self._db = _open(path)

    def find(self, digest: bytes) -> tuple[str, Record] | None:
        """The pack's name and the record."""
        row = self._db.execute(
            "SELECT name, offset, frame_size FROM chunks JOIN packs ON packs.id = pack WHERE digest = ?", (digest,)
        ).fetchone()
        return (row[0], Record(digest, row[1], row[2])) if row else None

    def has(self, digest: bytes) -> bool:
        return self._db.execute("SELECT 1 FROM chunks WHERE digest = ?", (digest,)).fetchone() is not None

    def known(self, digests: Sequence[bytes]) -> set[bytes]:
        """Those of `digests` that are indexed."""
        found: set[bytes] = set()
        for start in range(0, len(digests), _IN_MAX):
            part = digests[start : start + _IN_MAX]
            marks = ",".join("?" * len(part))
            rows = self._db.execute(f"SELECT digest FROM chunks WHERE digest IN ({marks})", part)
            found.update(row[0] for row in rows)
        return found

    def digests(self) -> list[bytes]:
        return [row[0] for row in self._db.execute("SELECT digest FROM chunks ORDER BY pack, offset")]

    def end(self, pack: str) -> int:
        """Up to where `pack` is indexed, in bytes."""
        row = self._db.execute("SELECT end FROM packs WHERE name = ?", (pack,)).fetchone()
        return row[0] if row else 0

    def add(self, pack: str, records: Iterable[Record], end: int) -> None:
        """Index durable records; `pack` is now known up to `end`. Adds nothing when it raises `StoreFullError`."""
        with self._change():
            self._set_end(pack, end)
            (pack_id,) = self._db.execute("SELECT id FROM packs WHERE name = ?", (pack,)).fetchone()
            beyond = (pack_id, HEADER.size, end)
            self._db.execute("DELETE FROM chunks WHERE pack = ? AND offset + frame_size + ? > ?", beyond)
            self._db.executemany(
                "INSERT OR IGNORE INTO chunks VALUES (?, ?, ?, ?)",
                ((record.digest, pack_id, record.offset, record.frame_size) for record in records),
            )

    def remove(self, digests: Iterable[bytes]) -> None:
        with self._change():
            self._db.executemany("DELETE FROM chunks WHERE digest = ?", ((digest,) for digest in digests))

    def forget(self, pack: str, record: Record) -> None:
        """Remove a record that went bad, unless the chunk has been moved or stored again meanwhile."""
        with self._change():
            self._db.execute(
                "DELETE FROM chunks WHERE digest = ? AND offset = ? AND pack = (SELECT id FROM packs WHERE name = ?)",
                (record.digest, record.offset, pack),
            )

    def live(self) -> dict[str, int]:
        """Bytes of indexed records by pack; packs without any are left out."""
        rows = self._db.execute(
            "SELECT name, sum(frame_size + ?) FROM chunks JOIN packs ON packs.id = pack GROUP BY pack", (HEADER.size,)
        )
        return dict(rows.fetchall())

    def sizes(self) -> dict[bytes, int]:
        """Bytes of each chunk's record."""
        return dict(self._db.execute("SELECT digest, frame_size + ? FROM chunks", (HEADER.size,)))

    def records(self, pack: str) -> list[Record]:
        """What is indexed in `pack`, in its order."""
        rows = self._db.execute(
            "SELECT digest, offset, frame_size FROM chunks"
            " JOIN packs ON packs.id = pack WHERE name = ? ORDER BY offset",
            (pack,),
        )
        return [Record(*row) for row in rows]

    def move(self, old: str, new: str, records: Iterable[Record], end: int) -> None:
        """Records of `old` lie in `new` now, durable, which is known up to `end`. Raises `StoreFullError`.

        What was removed meanwhile stays removed. The commit is durable: `old` is about to be deleted.
        """
        moved = ((record.offset, new, record.digest, old) for record in records)
        self._db.execute("PRAGMA synchronous = FULL")
        try:
            with self._change():
                self._set_end(new, end)
                self._db.executemany(
                    "UPDATE chunks SET offset = ?, pack = (SELECT id FROM packs WHERE name = ?)"
                    " WHERE digest = ? AND pack = (SELECT id FROM packs WHERE name = ?)",
                    moved,
                )
        finally:
            self._db.execute("PRAGMA synchronous = NORMAL")

    def packs(self) -> list[str]:
        return [row[0] for row in self._db.execute("SELECT name FROM packs")]

    def drop_pack(self, pack: str) -> None:
        """Forget a pack that no longer exists, with what was indexed in it."""
        with self._change():
            self._db.execute("DELETE FROM chunks WHERE pack = (SELECT id FROM packs WHERE name = ?)", (pack,))
            self._db.execute("DELETE FROM packs WHERE name = ?", (pack,))

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _change(self) -> Iterator[None]:
        """One transaction: all of it or nothing. Raises `StoreFullError`."""
        try:
            with self._db:
                yield
        except sqlite3.OperationalError as error:
            raise store_full(error) if _is_full(error) else error from None

    def _set_end(self, pack: str, end: int) -> None:
        self._db.execute(
            "INSERT INTO packs (name, end) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET end = excluded.end",
            (pack, end),
        )


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        # A commit lost to a power cut is found again in the pack on the next open; NORMAL never damages the file.
        db.execute("PRAGMA synchronous = NORMAL")
        db.executescript(_SCHEMA)
        db.execute("SELECT count(*) FROM packs").fetchone()
    except BaseException:
        db.close()
        raise
    return db


def _is_full(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorcode in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)


def _move_aside(path: Path) -> None:
    """The packs hold everything; the damaged file is kept for whoever wants to look."""
    path.replace(path.with_suffix(".damaged"))
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
