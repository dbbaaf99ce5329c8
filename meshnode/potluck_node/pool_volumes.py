"""What a pool's workers write that is kept: volumes, and roots. Opened before each starts, committed as it works, asked
for by its code."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import trio

from potluck import wire
from potluck.errors import Error, InvalidError, RefusedError, SandboxError
from potluck.wire import Failure
from potluck.wire.common import FunctionSpec
from potluck.wire.state import StateTold
from potluck.wire.volumes import CommitMount, MountRequest, ReloadMount, RootSnapshot, SnapshotRoot
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


class Root(Protocol):
    """A root that can be written to (`roots`)."""

    tree: Path
    place: Path

    async def snapshot(self, say: Callable[[str], None]) -> str:
        """An image of it. Raises `potluck.errors.Error`."""
        ...


# Takes the function, and what is told of a broken limit.
OpenRoot = Callable[[FunctionSpec, Callable[[Error], None]], AbstractAsyncContextManager[Root]]


class Written(NamedTuple):
    """What a worker can write to."""

    volumes: Mounted | None = None
    root: Root | None = None


NOTHING = Written()


class PoolVolumes:
    """`post` sends a worker an answer, `say` prints for it."""

    def __init__(
        self, action: ev.PreparePool, submit: Callable[[ev.Event], None], say: Callable[[str, str], None],
        post: Callable[[str, StateTold], None],
    ) -> None:  # fmt: skip
        self._spec, self._submit, self._say, self._post = action.function, submit, say, post
        # Without it, functions find no volumes.
        self.open: OpenVolumes | None = None
        # Without it, roots can only be read.
        self.open_root: OpenRoot | None = None
        self._mounted: dict[str, Mounted] = {}
        self._roots: dict[str, tuple[Root, trio.Nursery]] = {}
        self._asked: Counter[str] = Counter()
        # Workers that were told to leave.
        self.leaving = set[str]()

    @asynccontextmanager
    async def of(self, worker: str) -> AsyncIterator[Written]:
        """The volumes and the root of one worker, as long as the block lasts. Raises `Error`."""

        def broken(error: Error) -> None:
            self._submit(ev.LimitBroken(worker, error.what, failure=Failure.of(error)))

        try:
            async with AsyncExitStack() as stack:
                volumes, root = None, None
                if self._spec.volumes and self.open:
                    opened = self.open(worker, broken, partial(self._say, worker))
                    volumes = self._mounted[worker] = await stack.enter_async_context(opened)
                if self._spec.writable and self.open_root:
                    root = await self._enter_root(stack, worker, broken)
                yield Written(volumes, root)
        finally:
            self._mounted.pop(worker, None)
            self._asked.pop(worker, None)
            self.leaving.discard(worker)

    async def _enter_root(self, stack: AsyncExitStack, worker: str, broken: Callable[[Error], None]) -> Root | None:
        """None where roots cannot be written to: most of what a sandbox is for works there, too."""
        assert self.open_root
        try:
            root = await stack.enter_async_context(self.open_root(self._spec, broken))
        except SandboxError as error:
            log.warning("a sandbox's root cannot be written to: %s", error)
            return None
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        self._roots[worker] = root, nursery
        stack.callback(self._roots.pop, worker)
        return root

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
        try:
            request = wire.decode(message.payload, MountRequest)
            start = self._starter(worker, request)
        except Error as error:
            return Failure.of(error)
        if self._asked[worker] >= MOUNT_ASKS_MAX:
            return Failure.of(RefusedError(f"{MOUNT_ASKS_MAX} commits and reloads wait already."))
        self._asked[worker] += 1
        start(partial(self._answer, worker, request, message.number))
        return None

    def _starter(self, worker: str, request: MountRequest) -> Callable[[Callable[[], Awaitable[None]]], None]:
        """What runs a task for as long as what is asked for is there."""
        if isinstance(request, SnapshotRoot):
            if worker not in self._roots:
                raise _not_writable()
            return self._roots[worker][1].start_soon
        if worker not in self._mounted:
            raise _not_mounted()
        return self._mounted[worker].start

    async def _answer(self, worker: str, request: MountRequest, number: int) -> None:
        failure: Failure | None = None
        payload = b""
        try:
            payload = wire.encode(await self._done(worker, request))
        except Error as error:
            failure = Failure.of(error)
        self._asked[worker] -= 1
        self._post(worker, StateTold(number, payload, failure))

    async def _done(self, worker: str, request: MountRequest) -> VolumeMounted | RootSnapshot:
        match request:
            case CommitMount(volume):
                return VolumeMounted(await self._mounted[worker].of(volume).commit("commit()"))
            case ReloadMount(volume):
                return VolumeMounted(await self._mounted[worker].of(volume).reload())
            case SnapshotRoot():
                return RootSnapshot(await self._roots[worker][0].snapshot(partial(self._say, worker)))


def _not_writable() -> InvalidError:
    return InvalidError(
        "There is nothing to make a snapshot of.",
        why="the root can only be read here: it is no sandbox's, or the machine cannot mount overlays",
    )


def _not_mounted() -> InvalidError:
    return InvalidError("The function mounts no volume.", fix="Name it in volumes= of the function.")
