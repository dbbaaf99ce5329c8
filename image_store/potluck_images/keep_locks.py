"""Locks of the kernel that say what is in use, across processes. Gone with the process, however it ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# How often a lock that others hold is tried again.
_POLL_S = 0.05


class Hold:
    """A lock on a file, until `release`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """May be called more than once."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def hold(path: Path) -> Hold:
    """Share the lock, with any number of others. Waits while somebody has it alone: that is short."""
    while True:
        descriptor = _open(path)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if os.fstat(descriptor).st_nlink:
            return Hold(descriptor)
        os.close(descriptor)  # it was removed before it was locked


def try_alone(path: Path) -> Hold | None:
    """Have the lock alone, or None while anybody holds it."""
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return Hold(descriptor)


@contextmanager
def alone(path: Path, timeout_s: float) -> Iterator[bool]:
    """Whether the lock was to be had alone within `timeout_s`; it is, inside."""
    deadline = time.monotonic() + timeout_s
    while (lock := try_alone(path)) is None and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    try:
        yield lock is not None
    finally:
        if lock:
            lock.release()


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
