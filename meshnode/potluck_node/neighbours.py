"""Other nodes on this machine: together they lend no more than any one of them may.

Each tells in a file of its own, which it holds locked while it lives, what its workers have reserved; so a node that
died counts no more, however it died. GPUs are not in it: the driver shows to all who uses which.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from potluck_node.core import provider_events as ev

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("potluck.neighbours")

# How often the others' files are read, seconds: two nodes can both take what was free for so long.
LOOK_S = 0.5
# Nodes of one machine that are counted, bytes of one file that are read, and the most that one can claim: a million
# CPUs in thousandths, a PiB in MiB.
NODES_MAX, FILE_BYTES_MAX, CLAIM_MAX = 64, 64, 1 << 30

# A file that nobody holds and that is as old as this was not made just now, seconds.
DEAD_S = 60.0
TRIES = 10

Amount = tuple[int, int]


class Neighbours:
    """`reserved` are (CPU thousandths, MiB) of our workers; others' are told to the provider's core by `submit`."""

    def __init__(
        self, folder: Path, reserved: Callable[[], Amount], submit: Callable[[ev.NeighboursSeen], None]
    ) -> None:
        self._folder, self._reserved, self._submit = folder, reserved, submit
        self._name = f"{os.getuid()}-{secrets.token_hex(4)}"
        self._others: Amount = (0, 0)

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Tell and hear until cancelled."""
        try:
            own = await _open_own(self._folder, self._name)
        except OSError as error:
            log.warning("other nodes on this machine cannot be seen in %s: %s", self._folder, error)
            task_status.started()
            return
        try:
            _tidy(self._folder)
            self._look(own)
            task_status.started()
            while True:
                await trio.sleep(LOOK_S)
                self._look(own)
        finally:
            (self._folder / self._name).unlink(missing_ok=True)
            os.close(own)

    def _look(self, own: int) -> None:
        # Told first: of two that look at the same moment one at least sees the other.
        _tell(own, self._reserved())
        others = others_in(self._folder, self._name)
        if others != self._others:
            self._others = others
            self._submit(ev.NeighboursSeen(*others))


def _make(folder: Path) -> None:
    """Raises `OSError`."""
    if not folder.is_dir():
        # Other users of the machine have theirs there, too, and can remove nobody else's.
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o1777)


async def _open_own(folder: Path, name: str) -> int:
    """Raises `OSError`."""
    _make(folder)
    own = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    for _ in range(TRIES):
        with suppress(BlockingIOError):  # another looks at it just now
            fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return own
        await trio.sleep(LOOK_S / TRIES)
    os.close(own)
    raise OSError("its file is locked by somebody else")


def _tidy(folder: Path) -> None:
    """Remove what dead nodes of this user left."""
    for path in folder.glob(f"{os.getuid()}-*"):
        with suppress(OSError):
            old = path.stat().st_mtime < time.time() - DEAD_S
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if old and not _is_held(file):
                    path.unlink()
            finally:
                os.close(file)


def _tell(own: int, amount: Amount) -> None:
    text = f"{amount[0]} {amount[1]}\n".encode().ljust(FILE_BYTES_MAX)
    if os.pread(own, FILE_BYTES_MAX, 0) != text:
        os.pwrite(own, text, 0)


def others_in(folder: Path, own: str) -> Amount:
    """What all others that live have reserved."""
    names = sorted(entry.name for entry in os.scandir(folder) if entry.name != own)[:NODES_MAX]
    found = [_read(folder / name) for name in names]
    return sum(each[0] for each in found), sum(each[1] for each in found)


def _read(path: Path) -> Amount:
    """Nothing, of a node that does not live, or of what is no such file."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0, 0
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode) or not _is_held(file):
            return 0, 0
        cpu, memory = (min(max(0, int(word)), CLAIM_MAX) for word in os.pread(file, FILE_BYTES_MAX, 0).split())
        return cpu, memory
    except (OSError, ValueError):
        return 0, 0
    finally:
        os.close(file)


def _is_held(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False
