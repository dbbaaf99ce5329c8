"""A disk that can be stopped at any write: what SQLite does to its files is recorded, and what a power cut may leave of
that is made again, any number of times.

What was synced is there. Of what was not, any part may be: sectors reach the disk in any order, and a file's length
before its content. Files are there once they are created, and gone once they are deleted.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

SECTOR = 512


@dataclass(frozen=True)
class Op:
    """`kind` is write, truncate, sync or delete."""

    kind: str
    file: str
    offset: int = 0
    data: bytes = b""


@dataclass
class Disk:
    """`ops` are all there were; `name` that of the VFS which records them."""

    name: str
    ops: list[Op] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._vfs = _Vfs(self)

    def connect(self, path: Path, *settings: str) -> Any:
        """As `sqlite3.connect` for a `Journal`, with some pragmas set."""
        connection = apsw.Connection(str(path), vfs=self.name)
        for each in settings:
            connection.execute(f"PRAGMA {each}")
        return _Connection(connection)

    def after(self, count: int, dice: random.Random, kept_milli: int) -> dict[str, bytes]:
        """The files after so many operations and a power cut: of 1000 sectors that were not synced `kept_milli` are
        there. With 1000 the process alone was killed, and the last write was cut short."""
        files: dict[str, bytearray] = {}
        waiting: dict[str, list[Op]] = {}
        for op in self.ops[:count]:
            files.setdefault(op.file, bytearray())
            if op.kind == "delete":
                files.pop(op.file), waiting.pop(op.file, None)
            elif op.kind == "sync":
                for each in waiting.pop(op.file, []):
                    _apply(files[op.file], each)
            else:
                waiting.setdefault(op.file, []).append(op)
        for name, ops in waiting.items():
            for op in ops:
                _apply_some(files[name], op, dice, kept_milli)
        return {name: bytes(data) for name, data in files.items()}

    def closed(self) -> None:
        self._vfs.unregister()


def _apply(data: bytearray, op: Op) -> None:
    if op.kind == "truncate":
        del data[op.offset :]
        return
    end = op.offset + len(op.data)
    if len(data) < end:
        data.extend(bytes(end - len(data)))
    data[op.offset : end] = op.data


def _apply_some(data: bytearray, op: Op, dice: random.Random, kept_milli: int) -> None:
    if op.kind == "truncate":
        if dice.randrange(1000) < kept_milli:
            _apply(data, op)
        return
    for at in range(0, len(op.data), SECTOR):
        if dice.randrange(1000) < kept_milli:
            _apply(data, Op("write", op.file, op.offset + at, op.data[at : at + SECTOR]))


class _Vfs(apsw.VFS):
    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        super().__init__(disk.name, base="")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _File(self._disk, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        self._disk.ops.append(Op("delete", Path(filename).name))


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self._ops = disk.ops
        self._name = Path(name.filename() if isinstance(name, apsw.URIFilename) else name).name
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)
        self._ops.append(Op("write", self._name, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        super().xTruncate(newsize)
        self._ops.append(Op("truncate", self._name, newsize))

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        self._ops.append(Op("sync", self._name))


class _Connection:
    """What a journal uses of `sqlite3.Connection`."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def execute(self, query: str, values: tuple[Any, ...] = ()) -> Any:
        return self._connection.execute(query, values)

    def executescript(self, queries: str) -> None:
        self._connection.execute(queries).fetchall()

    def close(self) -> None:
        self._connection.close()
