"""Spawned calls on disk: what was asked, and what came of it. SQLite, one writer, the node."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from potluck import wire
from potluck.errors import InvalidError, NotFoundError, StoreFullError
from potluck.wire import Failure, FunctionSpec
from potluck.wire.common import Limit
from potluck.wire.spawned import INPUTS_MAX, KEPT_BYTES_MAX, RESULTS_US, SpawnedOutcome
from potluck.wire.verify import Verification
from potluck_ledger.sealing import LOCK_BYTES, Vault
from potluck_node.locks import Place, lock_old, unlocked

# sqlite.org/limits.html, SQLITE_MAX_LENGTH.
SQLITE_BYTES_MAX = 1_000_000_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    id TEXT PRIMARY KEY, function BLOB NOT NULL, at_us INTEGER NOT NULL, whole INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS inputs (
    call TEXT NOT NULL, number INTEGER NOT NULL, payload BLOB, outcome BLOB,
    PRIMARY KEY (call, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spent (
    call TEXT PRIMARY KEY, us INTEGER NOT NULL, cost INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS verified (
    call TEXT PRIMARY KEY, rule BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS under (
    call TEXT NOT NULL, place INTEGER NOT NULL, name TEXT NOT NULL, us INTEGER NOT NULL, cost INTEGER NOT NULL,
    PRIMARY KEY (call, place)
) STRICT, WITHOUT ROWID;
"""


_FUNCTION, _INPUT, _RULE = "spawned function", "spawned input", "spawned verification"


_SPENT_NOTHING: Mapping[str, tuple[int, int]] = MappingProxyType({})
# A limit with a name, and what is spent of it, as `CallOpened.under` has them.
Under = tuple[Limit, int, int]


class Facts(NamedTuple):
    function: FunctionSpec
    inputs: int
    done: int


def new_call() -> str:
    """A number for a call."""
    return f"fc-{secrets.token_hex(12)}"


class SpawnedStore:
    """Raises `InvalidError` when the file cannot be used, and `StoreFullError` when it cannot grow.

    Functions, what goes in and known answers are locked by `vault`: either may carry the values of secrets."""

    def __init__(self, path: Path, vault: Vault) -> None:
        self._vault = vault
        try:
            path.touch(mode=0o600)
            self._db = sqlite3.connect(path, isolation_level=None)
            # FULL: a call whose number was given to its caller must survive a power cut.
            self._db.executescript(
                f"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA secure_delete=ON; {_SCHEMA}"
            )
            inputs = Place("inputs", "call, number", "payload", _INPUT)
            lock_old(self._db, vault, Place("calls", "id", "function", _FUNCTION), inputs)
        except (sqlite3.Error, OSError) as error:
            raise InvalidError(f"{path} cannot be used.", why=str(error), fix="Move it away.") from None

    def close(self) -> None:
        self._db.close()

    def add(
        self, function: FunctionSpec, payloads: Iterable[bytes], at_us: int, *, whole: bool, call: str = "",
        under: Iterable[Under] = (), verify: Verification | None = None,
    ) -> str:  # fmt: skip
        """Record a call; returns its number, a new one unless given. Until it is `whole` it is not among those to
        run."""
        call = call or new_call()
        with self._transaction():
            self._db.execute(
                "INSERT INTO calls VALUES (?, ?, ?, ?)",
                (call, self._vault.lock(wire.encode(function), _FUNCTION), at_us, whole),
            )
            self._insert(call, 0, payloads)
            if verify:
                rule = self._vault.lock(wire.encode(verify), _RULE)
                self._db.execute("INSERT INTO verified VALUES (?, ?)", (call, rule))
            for place, (limit, *used) in enumerate(under):
                values = (call, place, limit.name, limit.lease_us, limit.cost)
                self._db.execute("INSERT INTO under VALUES (?, ?, ?, ?, ?)", values)
                self._db.execute("INSERT OR REPLACE INTO spent VALUES (?, ?, ?)", (limit.name, *used))
        return call

    def extend(self, call: str, payloads: Iterable[bytes], *, whole: bool) -> None:
        """Record further inputs of a call that is not whole."""
        found = self._one("SELECT whole FROM calls WHERE id = ?", call)
        if found is None or found[0]:
            raise NotFoundError(f"There is no call {call} to which inputs can be added.")
        with self._transaction():
            self._insert(call, self.facts(call).inputs, payloads)
            self._db.execute("UPDATE calls SET whole = ? WHERE id = ?", (whole, call))

    def _insert(self, call: str, first: int, payloads: Iterable[bytes]) -> None:
        rows = [(call, first + number, self._vault.lock(payload, _INPUT)) for number, payload in enumerate(payloads)]
        if any(len(locked) - LOCK_BYTES > KEPT_BYTES_MAX for _, _, locked in rows):
            raise InvalidError(
                f"An input of a spawned call has more than {KEPT_BYTES_MAX >> 20} MiB, which is all that is kept.",
                fix="Call it with .remote, which takes 2048 MiB, or pass the name of a file that the function reads.",
            )
        if first + len(rows) > INPUTS_MAX:
            raise InvalidError(f"A spawned call has at most {INPUTS_MAX} inputs.", fix="Spawn several.")
        self._db.executemany("INSERT INTO inputs (call, number, payload) VALUES (?, ?, ?)", rows)

    def facts(self, call: str) -> Facts:
        """Raises `NotFoundError`."""
        found = self._one("SELECT function FROM calls WHERE id = ?", call)
        if found is None:
            raise NotFoundError(
                f"There is no call {call[:64]} on this node.",
                why="results are kept for 7 days, on the node that spawned the call",
                fix="Compare the number, or ask on the machine where it was spawned.",
            )
        counted = self._one("SELECT count(*), count(outcome) FROM inputs WHERE call = ?", call)
        assert counted
        return Facts(wire.decode(unlocked(self._vault, found[0], _FUNCTION), FunctionSpec), *counted)

    def unfinished(self) -> list[str]:
        """Whole calls that lack outcomes, the oldest first."""
        rows = self._db.execute(
            "SELECT id FROM calls WHERE whole AND EXISTS "
            "(SELECT 1 FROM inputs WHERE call = id AND outcome IS NULL) ORDER BY at_us, rowid"
        )
        return [call for (call,) in rows]

    def waiting(self, call: str, after: int, count: int) -> list[tuple[int, bytes]]:
        """(number, payload) of at most `count` inputs without an outcome, in order, from the one after `after`."""
        rows = self._db.execute(
            "SELECT number, payload FROM inputs WHERE call = ? AND number > ? AND outcome IS NULL "
            "ORDER BY number LIMIT ?",
            (call, after, count),
        )
        return [(number, unlocked(self._vault, payload, _INPUT)) for number, payload in rows]

    def finish(
        self, outcomes: Iterable[tuple[str, SpawnedOutcome]], spent: Mapping[str, tuple[int, int]] = _SPENT_NOTHING
    ) -> None:
        """Record outcomes of calls; the first of an input counts. What went in is no longer needed. `spent` is what
        calls with a limit have used of it, and what of limits was used that hold for several: see `CallOpened`."""
        rows = [(_encoded(outcome), call, outcome.index) for call, outcome in outcomes]
        with self._transaction():
            self._db.executemany(
                "UPDATE inputs SET outcome = ?, payload = NULL WHERE call = ? AND number = ? AND outcome IS NULL", rows
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO spent VALUES (?, ?, ?)", [(call, *used) for call, used in spent.items()]
            )

    def spent(self, call: str) -> tuple[int, int]:
        """What was recorded of that last."""
        found = self._one("SELECT us, cost FROM spent WHERE call = ?", call)
        return (int(found[0]), int(found[1])) if found else (0, 0)

    def verify(self, call: str) -> Verification | None:
        """How results of it are checked."""
        found = self._one("SELECT rule FROM verified WHERE call = ?", call)
        return wire.decode(unlocked(self._vault, found[0], _RULE), Verification) if found else None

    def under(self, call: str) -> tuple[Under, ...]:
        """The limits that it was recorded with, and what was recorded of them last."""
        rows = self._db.execute("SELECT name, us, cost FROM under WHERE call = ? ORDER BY place", (call,)).fetchall()
        return tuple((Limit(name, us, cost), *self.spent(name)) for name, us, cost in rows)

    def lacking(self, call: str) -> list[int]:
        """The numbers of inputs without an outcome."""
        rows = self._db.execute("SELECT number FROM inputs WHERE call = ? AND outcome IS NULL", (call,))
        return [number for (number,) in rows]

    def outcome(self, call: str, index: int) -> SpawnedOutcome | None:
        """None while there is none. Raises `NotFoundError`."""
        found = self._one("SELECT outcome FROM inputs WHERE call = ? AND number = ?", call, index)
        if found is None:
            inputs = self.facts(call).inputs
            raise NotFoundError(f"The call has no input {index}.", why=f"it has {inputs}, counted from 0")
        return wire.decode(found[0], SpawnedOutcome) if found[0] else None

    def purge(self, now_us: int) -> None:
        """Forget calls that are older than results are kept, and those that were never whole."""
        with self._transaction():
            old = "SELECT id FROM calls WHERE at_us < ?"
            for table in ("inputs", "under", "verified"):
                self._db.execute(f"DELETE FROM {table} WHERE call IN ({old})", (now_us - RESULTS_US,))
            self._db.execute("DELETE FROM calls WHERE at_us < ?", (now_us - RESULTS_US,))
            kept = "SELECT id FROM calls UNION SELECT name FROM under"
            self._db.execute(f"DELETE FROM spent WHERE call NOT IN ({kept})")

    def drop_partial(self) -> None:
        """Forget calls whose client went before they were whole: at a start there can be no other."""
        with self._transaction():
            for table in ("inputs", "under", "verified"):
                self._db.execute(f"DELETE FROM {table} WHERE call IN (SELECT id FROM calls WHERE NOT whole)")
            self._db.execute("DELETE FROM calls WHERE NOT whole")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing, on disk when it ends."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise StoreFullError("A spawned call cannot be recorded.", why=str(error), fix="Make room.") from None
            raise

    def _one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        with closing(self._db.execute(query, values)) as rows:
            found: tuple[Any, ...] | None = rows.fetchone()
            return found


def _encoded(outcome: SpawnedOutcome) -> bytes:
    """What does not fit into the table would never get there, and all later outcomes would wait for it."""
    if len(outcome.payload or b"") <= KEPT_BYTES_MAX:
        data = wire.encode(outcome)
        if len(data) <= SQLITE_BYTES_MAX:
            return data
    failure = InvalidError(
        f"The function returned more than {KEPT_BYTES_MAX >> 20} MiB, which is all that is kept of a spawned call.",
        fix="Call it with .remote, which takes 2048 MiB, or write the result to a file and return its name.",
    )
    return wire.encode(SpawnedOutcome(0, outcome.index, failure=Failure.of(failure)))
