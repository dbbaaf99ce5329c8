"""The volumes of a pool's workers: opened before each starts, committed as it works, asked for by its code."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

from potluck import wire
from potluck.errors import Error, InvalidError, RefusedError
from potluck.wire import Failure
from potluck.wire.state import StateTold
from potluck.wire.volumes import CommitMount, MountRequest
from potluck.wire.volumes import Mounted as VolumeMounted
from potluck.wire.worker import InputRaised, InputRefused, InputSucceeded, MountAsked
from potluck_node.core import provider_events as ev

log = logging.getLogger("potluck.pool")

# Commits and reloads of one worker that wait: each mount does one after the other.
MOUNT_ASKS_MAX = 16

Outcome = InputSucceeded | InputRaised | InputRefused
# Opens the volumes of a worker; takes its name, and what is told of a broken limit and of what cannot be committed.
OpenVolumes = Callable[[str, Callable[[Error], None], Callable[[str], None]], AbstractAsyncContextManager["Mounted"]]


class Mounted(Protocol):
    """The volumes of one worker (`volumes.mounts`)."""

    @property
    def binds(self) -> tuple[tuple[Path, str, bool], ...]: ...

    def of(self, volume: str) -> Mount:
        """Raises `potluck.errors.Error`."""
        ...

    async def commit(self, what: str) -> None:
        """Raises `potluck.errors.Error`."""
        ...

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run something that ends with the mounts at the latest."""
        ...


class Mount(Protocol):
    """One of them; both return the version that it shows, and raise `potluck.errors.Error`."""

    async def commit(self, what: str) -> int: ...

    async def reload(self) -> int: ...


class PoolVolumes:
    """`post` sends a worker an answer, `say` prints for it."""

    def __init__(
        self, action: ev.PreparePool, submit: Callable[[ev.Event], None], say: Callable[[str, str], None],
        post: Callable[[str, StateTold], None],
    ) -> None:  # fmt: skip
        self._spec, self._submit, self._say, self._post = action.function, submit, say, post
        # Without it, functions find no volumes.
        self.open: OpenVolumes | None = None
        self._mounted: dict[str, Mounted] = {}
        self._asked: Counter[str] = Counter()
        # Workers that were told to leave.
        self.leaving = set[str]()

    @asynccontextmanager
    async def of(self, worker: str) -> AsyncIterator[Mounted | None]:
        """The volumes of one worker, as long as the block lasts. Raises `Error`."""
        if not self._spec.volumes or not self.open:
            yield None
            return

        def broken(error: Error) -> None:
            self._submit(ev.LimitBroken(worker, error.what, failure=Failure.of(error)))

        async with self.open(worker, broken, partial(self._say, worker)) as mounted:
            self._mounted[worker] = mounted
            try:
                yield mounted
            finally:
                del self._mounted[worker]
                self._asked.pop(worker, None)
                self.leaving.discard(worker)

    async def committed(self, worker: str, outcome: Outcome) -> Outcome:
        """What an input wrote is kept before anybody reads how it ended. A result whose files are lost is none.

        Of requests there are many, and each commit looks at all files: for them the background does.
        """
        if worker not in self._mounted or self._spec.web:
            return outcome
        try:
            await self._mounted[worker].commit("at the end of an input")
        except Error as error:
            if isinstance(outcome, InputSucceeded):
                return InputRefused(outcome.input, Failure.of(error), outcome.cpu_us)
        return outcome

    async def commit_last(self, worker: str) -> None:
        """What one wrote that was told to leave, in its exit methods."""
        if worker in self.leaving and worker in self._mounted:
            try:
                await self._mounted[worker].commit("at a worker's end")
            except Error as error:
                log.warning("what %s wrote at its end is lost: %s", worker, error)

    def ask(self, worker: str, message: MountAsked) -> Failure | None:
        """What user code wants to be done is begun; or why not."""
        mounted = self._mounted.get(worker)
        if mounted is None:
            return Failure.of(_not_mounted())
        if self._asked[worker] >= MOUNT_ASKS_MAX:
            return Failure.of(RefusedError(f"{MOUNT_ASKS_MAX} commits and reloads wait already."))
        self._asked[worker] += 1
        mounted.start(partial(self._answer, worker, mounted, message))
        return None

    async def _answer(self, worker: str, mounted: Mounted, message: MountAsked) -> None:
        failure: Failure | None = None
        payload = b""
        try:
            request = wire.decode(message.payload, MountRequest)
            mount = mounted.of(request.id)
            version = await (mount.commit("commit()") if isinstance(request, CommitMount) else mount.reload())
            payload = wire.encode(VolumeMounted(version))
        except Error as error:
            failure = Failure.of(error)
        self._asked[worker] -= 1
        self._post(worker, StateTold(message.number, payload, failure))


def _not_mounted() -> InvalidError:
    return InvalidError("The function mounts no volume.", fix="Name it in volumes= of the function.")
