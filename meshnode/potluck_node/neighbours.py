"""Other nodes on this machine: together they lend no more than any one of them may.

Each tells in a file of its own what its workers have reserved. GPUs are not in it: see `gpu_claims`.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from potluck_node.common_files import living, open_own, tidy
from potluck_node.core import provider_events as ev

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("potluck.neighbours")

# How often the others' files are read, seconds: two nodes can both take what was free for so long.
LOOK_S = 0.5
# Bytes of one file that are read, and the most that one can claim: a million CPUs in thousandths, a PiB in MiB.
FILE_BYTES_MAX, CLAIM_MAX = 64, 1 << 30

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
            own = await open_own(self._folder, self._name)
        except OSError as error:
            log.warning("other nodes on this machine cannot be seen in %s: %s", self._folder, error)
            task_status.started()
            return
        try:
            tidy(self._folder)
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


def _tell(own: int, amount: Amount) -> None:
    text = f"{amount[0]} {amount[1]}\n".encode().ljust(FILE_BYTES_MAX)
    if os.pread(own, FILE_BYTES_MAX, 0) != text:
        os.pwrite(own, text, 0)


def others_in(folder: Path, own: str) -> Amount:
    """What all others that live have reserved."""
    found = [_read(told.text) for told in living(folder, own, FILE_BYTES_MAX)]
    return sum(each[0] for each in found), sum(each[1] for each in found)


def _read(text: bytes) -> Amount:
    """Nothing, of what is no such file."""
    try:
        cpu, memory = (min(max(0, int(word)), CLAIM_MAX) for word in text.split())
        return cpu, memory
    except ValueError:
        return 0, 0
