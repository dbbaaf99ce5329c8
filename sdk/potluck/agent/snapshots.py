"""Snapshots of a sandbox's root, which its node makes."""

from __future__ import annotations

import ctypes
import os
import threading
from typing import Any

from potluck.asking import drive
from potluck.errors import Error, TimeoutError
from potluck.wire.sandbox import Made
from potluck.wire.volumes import RootSnapshot, SnapshotRoot


def snapshot(wait_s: float) -> Made:
    """Raises `TimeoutError` when it takes longer, and what kept the node from it."""
    _flush()
    found: list[RootSnapshot | Error] = []

    def ask() -> None:
        try:
            found.append(drive(_asked()))
        except Error as error:
            found.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(wait_s)
    if not found:
        raise TimeoutError("The snapshot is not ready.", why=f"{wait_s:g} s are over", fix="Give a larger timeout.")
    if isinstance(found[0], Error):
        raise found[0]
    return Made(found[0].image)


def _asked() -> Any:
    return (yield SnapshotRoot())


def _flush() -> None:
    """A kernel of the sandbox's own, as gVisor's, may still hold what was written."""
    root = os.open("/", os.O_RDONLY)
    try:
        ctypes.CDLL(None).syncfs(root)
    finally:
        os.close(root)
