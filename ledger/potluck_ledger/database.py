"""SQLite for a journal: one writes at a time, in any thread, and who reads meanwhile sees what is committed."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# A database that is in memory alone has one connection.
MEMORY = ":memory:"
# By depth: how to begin, how to end, and what takes all of it back.
_STATEMENTS = (
    (),
    ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"),
    ("SAVEPOINT one", "RELEASE one", "ROLLBACK TO one", "RELEASE one"),
)


def connect(path: Path) -> sqlite3.Connection:
    """One more connection to a database that others cannot read."""
    path.touch(mode=0o600)
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


class Database:
    """Tests give another `connect`. Raises `sqlite3.Error` wherever SQLite does."""

    def __init__(self, path: Path, schema: str, connect: Callable[[Path], sqlite3.Connection]) -> None:
        self._writer = connect(path)
        # FULL: an entry that was acknowledged to a peer must survive a power cut, else we would fork our own chain.
        self._writer.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; {schema}")
        self._reader = self._writer if str(path) == MEMORY else connect(path)
        # No other thread writes while it is held.
        self.lock = threading.RLock()
        self._depth = self._thread = 0

    @property
    def is_writing(self) -> bool:
        """Whether this thread is inside of a transaction."""
        return self._thread == threading.get_ident()

    @property
    def is_lost(self) -> bool:
        """Whether the transaction that this thread is in is gone: SQLite rolls it back by itself after some errors."""
        return not self._writer.in_transaction

    def read(self, query: str, *values: object) -> sqlite3.Cursor:
        """What is committed; inside of a transaction what it has written, too."""
        return (self._writer if self.is_writing else self._reader).execute(query, values)

    def write(self, query: str, *values: object) -> None:
        """Only inside of a transaction."""
        self._writer.execute(query, values)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of what is written, on disk at the end, or nothing. Inside of another one all or nothing is in that;
        deeper down it goes with what is around it."""
        with self.lock:
            self._depth, self._thread = self._depth + 1, threading.get_ident()
            try:
                if self._depth < len(_STATEMENTS):
                    with self._whole(*_STATEMENTS[self._depth]):
                        yield
                else:
                    yield
            finally:
                self._depth -= 1
                self._thread = threading.get_ident() if self._depth else 0

    @contextmanager
    def _whole(self, begin: str, end: str, *undo: str) -> Iterator[None]:
        try:
            self._writer.execute(begin)
            yield
            self._writer.execute(end)
        except BaseException:
            # SQLite has rolled back by itself after some errors.
            with suppress(sqlite3.Error):
                for each in undo:
                    self._writer.execute(each)
            raise

    def close(self) -> None:
        if self._reader is not self._writer:
            self._reader.close()
        self._writer.close()
