"""Small files in a folder that all nodes of a machine may write to: each has one, and holds it locked while it lives.

So a node that died counts no more, however it died; and in a sticky folder nobody removes what is another's.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import trio

# Nodes of one machine that are counted.
NODES_MAX = 64
# A file that nobody holds and that is as old as this was not made just now, seconds.
DEAD_S = 60.0
# Whoever looks at a file has it locked for a moment.
TRIES, TRY_S = 10, 0.05

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Told(NamedTuple):
    """What a node that lives has in its file, `user` being who owns that."""

    name: str
    user: int
    text: bytes


def make(folder: Path) -> None:
    """Raises `OSError`."""
    if folder.is_symlink():
        raise OSError("it is a link, which another user may have made")
    if not folder.is_dir():
        # Other users of the machine have theirs there, too, and can remove nobody else's.
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o1777)


async def open_own(folder: Path, name: str) -> int:
    """A file of one's own, locked until it is closed. Raises `OSError`."""
    make(folder)
    own = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    for _ in range(TRIES):
        with suppress(BlockingIOError):  # another looks at it just now
            fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return own
        await trio.sleep(TRY_S)
    os.close(own)
    raise OSError("its file is locked by somebody else")


def tidy(folder: Path) -> None:
    """Remove what dead nodes of this user left."""
    for path in folder.glob(f"{os.getuid()}-*"):
        with suppress(OSError):
            old = path.stat().st_mtime < time.time() - DEAD_S
            file = os.open(path, _READ)
            try:
                if old and not _is_held(file):
                    path.unlink()
            finally:
                os.close(file)


def living(folder: Path, own: str, bytes_max: int) -> Iterator[Told]:
    """The files of all others that live, up to so many bytes of each. Raises `OSError` if there is no such folder."""
    for name in sorted(entry.name for entry in os.scandir(folder) if entry.name != own)[:NODES_MAX]:
        with suppress(OSError):
            file = os.open(folder / name, _READ)
            try:
                found = os.fstat(file)
                if stat.S_ISREG(found.st_mode) and _is_held(file):
                    yield Told(name, found.st_uid, os.pread(file, bytes_max, 0))
            finally:
                os.close(file)


def _is_held(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False
