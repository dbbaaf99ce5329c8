"""Deployed apps on disk: their functions, under the names by which they are found. SQLite, one writer, the node."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import NamedTuple

import msgspec

from potluck import wire
from potluck.errors import InvalidError, StoreFullError
from potluck.wire.apps import NamedFunction
from potluck_ledger.sealing import Vault
from potluck_node.locks import Place, lock_old, unlocked

_SCHEMA = """
CREATE TABLE IF NOT EXISTS apps (name TEXT PRIMARY KEY, functions BLOB NOT NULL, at_us INTEGER NOT NULL) STRICT;
"""

_CONTEXT = "deployed functions"
_encoder = msgspec.msgpack.Encoder()


class Deployment(NamedTuple):
    functions: tuple[NamedFunction, ...]
    at_us: int


class AppStore:
    """Raises `InvalidError` when the file cannot be used, and `StoreFullError` when it cannot be written.

    What is recorded is locked by `vault`: functions carry the values of their secrets."""

    def __init__(self, path: Path, vault: Vault) -> None:
        self._vault = vault
        try:
            path.touch(mode=0o600)
            self._db = sqlite3.connect(path, isolation_level=None)
            # FULL: what "deployed" was said of survives a power cut.
            self._db.executescript(
                f"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA secure_delete=ON; {_SCHEMA}"
            )
            lock_old(self._db, vault, Place("apps", "name", "functions", _CONTEXT))
        except (sqlite3.Error, OSError) as error:
            raise InvalidError(f"{path} cannot be used.", why=str(error), fix="Move it away.") from None

    def close(self) -> None:
        self._db.close()

    def put(self, app: str, deployment: Deployment) -> None:
        """Record, in place of an earlier one of this name."""
        row = (app, self._vault.lock(_encoder.encode(deployment.functions), _CONTEXT), deployment.at_us)
        self._write("INSERT OR REPLACE INTO apps VALUES (?, ?, ?)", row)

    def remove(self, app: str) -> bool:
        """Forget; returns whether there was one."""
        return self._write("DELETE FROM apps WHERE name = ?", (app,)) > 0

    def all(self) -> dict[str, Deployment]:
        """Every deployment by name."""
        rows = self._db.execute("SELECT name, functions, at_us FROM apps ORDER BY name")
        return {name: Deployment(self._opened(data), at_us) for name, data, at_us in rows}

    def _opened(self, data: bytes) -> tuple[NamedFunction, ...]:
        return wire.decode(unlocked(self._vault, data, _CONTEXT), tuple[NamedFunction, ...])

    def _write(self, query: str, values: tuple[object, ...]) -> int:
        try:
            return self._db.execute(query, values).rowcount
        except sqlite3.Error as error:
            raise StoreFullError("The deployment cannot be recorded.", why=str(error), fix="Make room.") from None
