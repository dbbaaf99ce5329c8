"""The disk of a simulated node: slow, full for a while, and where the power fails around a write.

What is kept is kept by the journal's own code; the database is in memory and outlives the node's deaths. `keep` is what
the node's books write through (`books.Keep`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from potluck_ledger.journal import Journal, JournalError, Problem
from potluck_netsim.facts import DiskFull
from potluck_netsim.faults import Faults
from potluck_netsim.world import World

Write = Callable[[], None]
Then = Callable[[Problem], None]


class Host(Protocol):
    name: str
    world: World
    faults: Faults
    # Ends the node there and then, as a power cut does.
    power_fails: Callable[[], None]

    @property
    def journal(self) -> Journal: ...

    def later(self, delay_us: int, do: Callable[[], None]) -> None: ...


class Disk:
    """Of one life of a node."""

    def __init__(self, host: Host) -> None:
        self._host, self._free_us, self.full_until_us = host, 0, 0

    def fill(self, for_us: int) -> None:
        """Nothing can be written for a while."""
        world = self._host.world
        self.full_until_us = world.now_us + for_us
        world.tell(self._host.name, f"has a full disk for {for_us / 1e6:.1f} s")
        world.fact(DiskFull(self._host.name))

    def keep(self, write: Write, then: Then) -> None:
        """Write in the order of asking, and then say what came of it."""
        world, slow_us = self._host.world, self._host.faults.disk_us
        if not slow_us:
            self._write(write, then)
            return
        self._free_us = max(self._free_us, world.now_us) + world.around(slow_us)
        self._host.later(self._free_us - world.now_us, partial(self._write, write, then))

    def _write(self, write: Write, then: Then) -> None:
        world, journal = self._host.world, self._host.journal
        if world.now_us < self.full_until_us:
            then(JournalError("The journal cannot be written: the disk is full."))
            return
        fails = world.chance(self._host.faults.write_crash_milli)
        if fails and world.chance(500):
            self._host.power_fails()
            return
        (problem,) = journal.together([write])
        journal.count()
        if fails:
            self._host.power_fails()
        else:
            then(problem)
