"""The data folder: who may use it, and one node at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from potluck.errors import DataFolderBusyError, InvalidError


class Home:
    """Opens (and makes) a data folder and locks it for the life of this object.

    Raises `DataFolderBusyError` when another node works on it, `InvalidError` when it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o711)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InvalidError(
                f"The data folder {path} cannot be used.",
                why=str(error),
                fix="Give another one: --home or POTLUCK_HOME.",
            ) from None
        try:
            # A lock of the kernel: gone with the process, however it ends.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._lock, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._lock)
            raise DataFolderBusyError(
                f"Another node already works on {path}.",
                why=f"process {holder} holds its lock",
                fix="Use that node, end it with `potluck down`, or give this one its own folder: --home.",
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    @property
    def key(self) -> Path:
        return self.path / "node.key"

    @property
    def journal(self) -> Path:
        return self.path / "journal-2.sqlite"

    @property
    def scores(self) -> Path:
        return self.path / "scores.json"

    @property
    def strangers(self) -> Path:
        return self.path / "strangers.sqlite"

    @property
    def lab(self) -> Path:
        return self.path / "lab.sqlite"

    @property
    def spawned(self) -> Path:
        return self.path / "spawned.sqlite"

    @property
    def secrets(self) -> Path:
        return self.path / "secrets.sqlite"

    @property
    def state(self) -> Path:
        return self.path / "state.sqlite"

    @property
    def tokens(self) -> Path:
        return self.path / "tokens.json"

    @property
    def history(self) -> Path:
        return self.path / "history.jsonl"

    @property
    def store(self) -> Path:
        return self.path / "store"

    def next_sequence(self, now_us: int) -> int:
        """A number for offers that only grows, also over restarts: the clock, unless that went back."""
        path = self.path / "offer-sequence"
        last = int(path.read_text()) if path.exists() else 0
        sequence = max(last + 1, now_us)
        path.write_text(str(sequence))
        return sequence

    def close(self) -> None:
        os.close(self._lock)
