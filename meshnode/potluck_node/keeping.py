"""One wait for the disk for all that is to be kept in the journal: what comes during one is taken by the next (group
commit, as databases have it)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import trio

from potluck_ledger.journal import Journal, JournalError, Problem
from potluck_node.books import Keep, at_once

if TYPE_CHECKING:
    from trio_typing import TaskStatus

# What may wait: a receipt and some vouchers for each lease, of a thousand given and as many taken. A KiB each.
WAITING_MAX = 20_000
# From the beginning of one wait for the disk to the next: lone writes do not wait longer, and of a thousand in a second
# ten share one, where a wait alone costs as much as what is written. What is signed meanwhile is not called for.
GATHER_S = 0.01


class _Waiting(NamedTuple):
    write: Callable[[], None]
    then: Callable[[Problem], None]


class Keeping:
    """While it is not served, each waits for the disk alone."""

    def __init__(self, journal: Journal) -> None:
        self._journal, self._at_once = journal, at_once(journal)
        self._waiting: list[_Waiting] = []
        self._news = trio.Event()
        self._serving = False
        # The loop's other threads may all be busy with images.
        self._limiter = trio.CapacityLimiter(1)

    def keep(self, write: Callable[[], None], then: Callable[[Problem], None]) -> None:
        """As `books.Keep`. `write` runs in another thread, and uses the journal alone."""
        if not self._serving:
            self._at_once(write, then)
        elif len(self._waiting) >= WAITING_MAX:
            then(JournalError("too much waits for the disk"))
        else:
            self._waiting.append(_Waiting(write, then))
            self._news.set()

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep what is asked for until cancelled; then what waits is kept first."""
        self._serving = True
        task_status.started()
        try:
            while True:
                await self._news.wait()
                self._news = trio.Event()
                begun = trio.current_time()
                with trio.CancelScope(shield=True):
                    await self._commit()
                await trio.sleep_until(begun + GATHER_S)
        finally:
            self._serving = False
            taken, self._waiting = self._waiting, []
            self._tell(taken, self._journal.together([each.write for each in taken]))

    async def _commit(self) -> None:
        taken, self._waiting = self._waiting, []
        writes = [each.write for each in taken]
        self._tell(taken, await trio.to_thread.run_sync(self._journal.together, writes, limiter=self._limiter))

    def _tell(self, taken: list[_Waiting], problems: list[Problem]) -> None:
        self._journal.count()
        for each, problem in zip(taken, problems, strict=True):
            each.then(problem)


async def kept(keep: Keep, write: Callable[[], None]) -> None:
    """Wait until it is on disk. Raises `JournalError`, `EnvelopeError`. What somebody waited for who was cancelled is
    kept all the same."""
    done, found = trio.Event(), list[Problem]()

    def then(problem: Problem) -> None:
        found.append(problem)
        done.set()

    keep(write, then)
    await done.wait()
    if found[0]:
        raise found[0]
