"""Joins what is asked for at the same time into one transaction: each waits for the disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from potluck.errors import Error
from potluck_node.clock import Clock
from potluck_node.state.store import Do, Done, StateStore
from potluck_node.state.work import Outcome, Spot

if TYPE_CHECKING:
    from trio_typing import TaskStatus

# Requests in one transaction: some milliseconds of work, so that the first does not wait long for the last.
BATCH_MAX = 256


@dataclass
class _Job:
    do: Do
    # Told an outcome that nobody waits for any more.
    orphaned: Callable[[Outcome], None]
    ended: trio.Event = field(default_factory=trio.Event)
    outcome: Outcome | Error | None = None
    begun: bool = False
    left: bool = False


class Batches:
    """`on_news` is told what others may have waited for, once it is on disk."""

    def __init__(self, store: StateStore, clock: Clock, on_news: Callable[[dict[Spot, int]], None]) -> None:
        self._store, self._clock, self._on_news = store, clock, on_news
        self._jobs: deque[_Job] = deque()
        self._wake = trio.Event()
        self._limiter = trio.CapacityLimiter(1)

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Commit until cancelled; what has begun is finished first."""
        task_status.started()
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while jobs := self._next():
                # A thread that writes cannot be stopped, so it is waited for.
                with trio.CancelScope(shield=True):
                    done = await trio.to_thread.run_sync(
                        self._store.run, [job.do for job in jobs], self._clock.now_us(), limiter=self._limiter
                    )
                self._finish(jobs, done)

    def _next(self) -> list[_Job]:
        jobs: list[_Job] = []
        while self._jobs and len(jobs) < BATCH_MAX:
            job = self._jobs.popleft()
            if not job.left:
                job.begun = True
                jobs.append(job)
        return jobs

    def _finish(self, jobs: list[_Job], done: Done) -> None:
        for job, outcome in zip(jobs, done.outcomes, strict=True):
            job.outcome = outcome
            job.ended.set()
            if job.left and isinstance(outcome, Outcome):
                job.orphaned(outcome)
        self._on_news(done.news)

    async def run(self, do: Do, orphaned: Callable[[Outcome], None] = lambda outcome: None) -> Outcome:
        """Do it, on disk when this returns. Raises `potluck.errors.Error`. Cancelled before it begins, nothing is
        done; later, `orphaned` is told what came of it."""
        job = self._submit(do, orphaned)
        try:
            await job.ended.wait()
        except trio.Cancelled:
            job.left = True
            if isinstance(job.outcome, Outcome):
                orphaned(job.outcome)
            raise
        if isinstance(job.outcome, Error):
            raise job.outcome
        assert job.outcome
        return job.outcome

    def post(self, do: Do) -> None:
        """Do it; nobody waits for it."""
        self._submit(do, lambda outcome: None)

    def _submit(self, do: Do, orphaned: Callable[[Outcome], None]) -> _Job:
        job = _Job(do, orphaned)
        self._jobs.append(job)
        self._wake.set()
        return job
