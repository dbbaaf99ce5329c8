"""Secrets kept under a name, on disk, under the node's key. SQLite, one writer, the node."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import msgspec

from potluck import wire
from potluck.errors import AlreadyExistsError, InvalidError, NotFoundError, StoreFullError
from potluck.wire import control
from potluck.wire import secrets as messages
from potluck_ledger.sealing import Vault
from potluck_node.clock import Clock
from potluck_node.locks import unlocked

_SCHEMA = """
CREATE TABLE IF NOT EXISTS secrets (
    name TEXT PRIMARY KEY, variables BLOB NOT NULL, locked BLOB NOT NULL, created_us INTEGER NOT NULL,
    used_us INTEGER NOT NULL DEFAULT 0
) STRICT;
"""


class SecretStore:
    """Answers `messages.SecretQuestion`s. Raises `InvalidError` when the file cannot be used."""

    def __init__(self, path: Path, vault: Vault, clock: Clock) -> None:
        self._vault, self._clock = vault, clock
        try:
            path.touch(mode=0o600)
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.executescript(
                f"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA secure_delete=ON; {_SCHEMA}"
            )
        except (sqlite3.Error, OSError) as error:
            raise InvalidError(f"{path} cannot be used.", why=str(error), fix="Move it away.") from None

    def close(self) -> None:
        self._db.close()

    def answer(self, question: messages.SecretQuestion) -> wire.Message:
        """Raises `potluck.errors.Error`."""
        match question:
            case messages.KeepSecret():
                self._keep(question)
            case messages.ForgetSecret(number, name):
                if not self._write("DELETE FROM secrets WHERE name = ?", name):
                    raise _unknown(name)
            case messages.AskSecret(number, name):
                values, created_us = self._values(name)
                self._write("UPDATE secrets SET used_us = ? WHERE name = ?", self._clock.now_us(), name)
                return messages.SecretValues(number, values, created_us)
            case messages.AskSecrets(number):
                return messages.Secrets(number, tuple(self._facts()))
        return control.Done(question.question)

    def _facts(self) -> list[messages.SecretFacts]:
        rows = self._db.execute(
            "SELECT name, variables, created_us, used_us FROM secrets ORDER BY created_us DESC, name"
        )
        return [
            messages.SecretFacts(name, wire.decode(variables, tuple[str, ...]), created_us, used_us)
            for name, variables, created_us, used_us in rows
        ]

    def _values(self, name: str) -> tuple[dict[str, str], int]:
        found = self._db.execute("SELECT locked, created_us FROM secrets WHERE name = ?", (name,)).fetchone()
        if found is None:
            raise _unknown(name)
        return wire.decode(unlocked(self._vault, found[0], _context(name)), dict[str, str]), found[1]

    def _keep(self, question: messages.KeepSecret) -> None:
        name, values, existing = question.name, question.values, question.existing
        _check_name(name)
        there = self._db.execute("SELECT created_us FROM secrets WHERE name = ?", (name,)).fetchone()
        if existing == messages.MERGE:
            values = {**self._values(name)[0], **values}
        elif there and existing == messages.REFUSE:
            raise AlreadyExistsError(
                f"There is a secret named {name} already.", fix="Replace it: potluck secret create --force"
            )
        elif there and existing == messages.KEEP:
            return
        _check(values)
        if not there and len(self._facts()) >= messages.SECRETS_MAX:
            raise InvalidError(f"There are {messages.SECRETS_MAX} secrets already.", fix="Delete some.")
        created_us = there[0] if there else self._clock.now_us()
        variables = msgspec.msgpack.encode(tuple(sorted(values)))
        locked = self._vault.lock(msgspec.msgpack.encode(values), _context(name))
        self._write(
            "INSERT OR REPLACE INTO secrets (name, variables, locked, created_us) VALUES (?, ?, ?, ?)",
            name, variables, locked, created_us,
        )  # fmt: skip

    def _write(self, query: str, *values: object) -> int:
        try:
            return self._db.execute(query, values).rowcount
        except sqlite3.Error as error:
            raise StoreFullError("The secret cannot be recorded.", why=str(error), fix="Make room.") from None


def _context(name: str) -> str:
    return f"secret {name}"


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(
        f"There is no secret named {name[: messages.NAME_MAX]} on this node.", fix="Make it: potluck secret create NAME"
    )


def _check_name(name: str) -> None:
    if not re.fullmatch(rf"[A-Za-z0-9_.-]{{1,{messages.NAME_MAX}}}", name):
        raise InvalidError(
            "This is no name for a secret.",  # it may be a value, given in the wrong place
            fix=f"Use up to {messages.NAME_MAX} letters, digits, '-', '_' and '.'.",
        )


def _check(values: dict[str, str]) -> None:
    size = sum(len(name.encode()) + len(value.encode()) for name, value in values.items())
    if not 0 < len(values) <= messages.VARIABLES_MAX or size > messages.SECRET_BYTES_MAX:
        raise InvalidError(
            f"A secret has from 1 to {messages.VARIABLES_MAX} variables, {messages.SECRET_BYTES_MAX >> 10} KiB at most."
        )
    for name, value in values.items():
        if not name or "=" in name or "\0" in name + value:
            raise InvalidError(f"{name!r} cannot be a variable.", fix="Names have no '=', and nothing a zero byte.")
