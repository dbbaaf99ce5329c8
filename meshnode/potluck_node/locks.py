"""What the node's databases hold under its key, and what older versions left there in plain."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from potluck.errors import CorruptDataError
from potluck_ledger.sealing import SealError, Vault, is_locked

# `PRAGMA user_version` of a database that has been through this.
_LOCKED_VERSION = 1


def unlocked(vault: Vault, data: bytes, context: str) -> bytes:
    """Raises `CorruptDataError`."""
    try:
        return vault.unlock(data, context)
    except SealError as error:
        raise CorruptDataError(
            f"A {context} on this node cannot be read.", why=str(error), fix="It belongs to the node's key: node.key."
        ) from None


class Place(NamedTuple):
    """A column with locked values, and the columns that tell its rows apart."""

    table: str
    key: str
    column: str
    context: str


def lock_old(db: sqlite3.Connection, vault: Vault, *places: Place) -> None:
    """Lock what a version without locks recorded, and leave nothing of it in the file. Raises `sqlite3.Error`."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version >= _LOCKED_VERSION:
        return
    for table, key, column, context in places:
        where = f"({key}) = ({', '.join('?' * len(key.split(',')))})"
        for at in db.execute(f"SELECT {key} FROM {table} WHERE {column} IS NOT NULL").fetchall():
            (data,) = db.execute(f"SELECT {column} FROM {table} WHERE {where}", at).fetchone()
            if not is_locked(data):
                db.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (vault.lock(data, context), *at))
    db.execute("VACUUM")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    db.execute(f"PRAGMA user_version = {_LOCKED_VERSION}")
