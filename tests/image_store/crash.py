"""Runs a program that dies, as by `kill -9`, at its n-th touch of the disk or the index: n = 1, 2, … until it ends.

    at_every_step(make, work, check): for each n, a fresh folder from `make(folder)`, then `work(folder)` in a process
    of its own that is killed at step n, then `check(folder)`. Returns how many times it was killed.

A write is torn in the middle. SQLite's statements count through its trace hook; what it writes to disk between two
of them is its own, well-tested business.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

Step = Callable[[Path], None]

# Far more than any operation here has; ends a test that would never end.
STEPS_MAX = 2000
_CALLS = (
    "pwrite",
    "write",
    "fsync",
    "fdatasync",
    "ftruncate",
    "unlink",
    "rename",
    "replace",
    "link",
    "symlink",
    "utime",
)


def at_every_step(make: Step, work: Step, check: Step, folder: Path) -> int:
    template = folder / "template"
    template.mkdir()
    make(template)
    for step in range(1, STEPS_MAX):
        place = folder / "place"
        shutil.copytree(template, place)
        killed = _run(work, place, step)
        check(place)
        shutil.rmtree(place)
        if not killed:
            return step - 1
    raise AssertionError(f"it did not end within {STEPS_MAX} steps")


def _run(work: Step, place: Path, step: int) -> bool:
    """Whether it was killed. Raises when it failed by itself."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _arm(step)
            work(place)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, f"the work itself failed at step {step}"
    return False


def _arm(step: int) -> None:
    left = [step]

    def count() -> bool:
        left[0] -= 1
        return left[0] == 0

    for name in _CALLS:
        setattr(os, name, _counted(name, getattr(os, name), count))
    connect = sqlite3.connect

    def traced(*args, **kwargs):
        db = connect(*args, **kwargs)
        db.set_trace_callback(lambda sql: os.kill(os.getpid(), signal.SIGKILL) if count() else None)
        return db

    sqlite3.connect = traced


def _counted(name: str, real: Callable, count: Callable[[], bool]) -> Callable:
    def call(*args, **kwargs):
        if count():
            if name in ("pwrite", "write"):
                real(args[0], bytes(args[1])[: len(args[1]) // 2], *args[2:])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    return call
