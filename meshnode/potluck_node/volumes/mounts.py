"""Volumes where functions run: a folder for each worker and volume, filled before it starts, committed while it works.

What a function writes is a stranger's: `volume_scan` looks at it, and a watch ends the worker that takes too much of
the owner's disk. One that cannot be written to is the tree that all workers here share, fetched as it is read when it
is large.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

import trio

from potluck import wire
from potluck.errors import Error, InvalidError, ResourceExceededError, SandboxError
from potluck.wire.common import FunctionSpec, VolumeMount
from potluck.wire.state import StateAnswer
from potluck.wire.volumes import AskHead, CommitVolume, VolumeAt
from potluck_images.keep import PRIVATE
from potluck_images.volume_tree import EMPTY, TOP
from potluck_images.volume_write import write
from potluck_node.images import ImageService
from potluck_node.store_errors import own_errors
from potluck_node.volumes.folder import Folder, check_room, remove
from potluck_node.volumes.trees import Trees

log = logging.getLogger("potluck.volumes")

# Between commits of what a function has written and not committed itself, seconds.
COMMIT_S = 10.0
# How often it is looked how much a function has written: a fast disk takes some 500 MiB meanwhile.
LOOK_S = 0.5

# Takes an encoded request, gives the encoded answer of the caller's node.
Ask = Callable[[bytes], Awaitable[bytes]]
# Told what ends the worker.
Broken = Callable[[Error], None]
Say = Callable[[str], None]


class Mount(Protocol):
    """One volume of one worker."""

    at: VolumeMount

    @property
    def source(self) -> Path:
        """What is bound into the sandbox."""
        ...

    async def commit(self, what: str) -> int:
        """Make what was written a version; returns which the mount is of. Raises `potluck.errors.Error`."""
        ...

    async def reload(self) -> int:
        """Show the newest version. Raises `potluck.errors.Error`."""
        ...


class Mounts:
    """`bytes_max` bounds what one volume that can be written to takes of the disk."""

    def __init__(self, home: Path, images: ImageService, bytes_max: int) -> None:
        self._home, self._images, self._bytes_max = home / "volumes" / "mounts", images, bytes_max
        self._trees = Trees(images)
        remove(self._home)

    @asynccontextmanager
    async def open(
        self, function: FunctionSpec, caller: str, ask: Ask, broken: Broken, say: Say
    ) -> AsyncIterator[Mounted]:
        """All volumes of one worker, until the block ends. Raises `potluck.errors.Error`."""
        asker = _Asker(ask)
        async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
            mounts = list[Mount]()
            for at in function.volumes:
                with own_errors():
                    name = f"{function.app}/{function.name}"
                    made = self._read_only(at, caller, asker, name, nursery) if at.read_only else None
                    opened = made or self._writable(at, caller, asker)
                    mounts.append(await stack.enter_async_context(opened))
            mounted = Mounted(mounts, say, nursery)
            for mount in mounts:
                if isinstance(mount, Writable):
                    nursery.start_soon(self._watch, mount, broken)
            nursery.start_soon(mounted.keep_committing)
            yield mounted
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def _writable(self, at: VolumeMount, caller: str, asker: _Asker) -> AsyncIterator[Mount]:
        head = await asker.head(at.id)
        if head.image:
            await self._images.fetch_from(head.image, [caller])
        place = self._home / secrets.token_hex(8)
        try:
            tree = await self._trees.load(head.image, [caller])
            make = partial(Folder, place, self._trees.store, tree, at.sub_path, self._bytes_max)
            folder = await trio.to_thread.run_sync(make)
            yield Writable(at, folder, self._trees, caller, asker, head.version)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(remove, place)

    @asynccontextmanager
    async def _read_only(
        self, at: VolumeMount, caller: str, asker: _Asker, function: str, nursery: trio.Nursery
    ) -> AsyncIterator[Mount]:
        head = await asker.head(at.id)
        if not head.image:
            async with self._writable(at, caller, asker) as empty:
                yield Fixed(at, empty.source, asker, head)
            return
        # The profile of what is read is that of the volume, whatever its version.
        ready = await self._images.mount_private(head.image, caller, f"{function}{at.path}")
        place = self._home / secrets.token_hex(8)
        try:
            if ready.is_lazy:
                nursery.start_soon(ready.serve)
                source = await trio.to_thread.run_sync(_inside, ready.root / TOP, at.sub_path)
                yield Fixed(at, source, asker, head)
            else:
                shown = Shown(at, place, self._trees, caller, asker)
                await shown.show(head, ready.root)
                shown.source = await trio.to_thread.run_sync(_inside, shown.source, at.sub_path)
                yield shown
        finally:
            with trio.CancelScope(shield=True):
                await ready.aclose()
                await trio.to_thread.run_sync(remove, place)
            self._images.release(head.image)

    async def _watch(self, mount: Writable, broken: Broken) -> None:
        while True:
            await trio.sleep(LOOK_S)
            if found := await trio.to_thread.run_sync(check_room, mount.folder.top, mount.folder.bytes_max):
                broken(_too_much(found))
                return


class Mounted:
    """The volumes of one worker."""

    def __init__(self, mounts: list[Mount], say: Say, nursery: trio.Nursery) -> None:
        self._mounts, self._say, self._nursery = mounts, say, nursery
        self._told = set[str]()

    @property
    def binds(self) -> tuple[tuple[Path, str, bool], ...]:
        """(folder on this machine, path inside, whether it can only be read)."""
        return tuple((mount.source, mount.at.path, mount.at.read_only) for mount in self._mounts)

    def of(self, volume: str) -> Mount:
        """By its id. Raises `InvalidError`: no worker touches a volume that is not its function's."""
        for mount in self._mounts:
            if mount.at.id == volume:
                return mount
        raise InvalidError("This volume is not mounted here.", fix="Name it in volumes= of the function.")

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run something that ends with the mounts at the latest."""
        self._nursery.start_soon(task)

    async def commit(self, what: str) -> None:
        """All that can be written to. Raises `potluck.errors.Error`."""
        for mount in self._mounts:
            if not mount.at.read_only:
                await mount.commit(what)
                self._say_what_stays(mount)

    async def keep_committing(self) -> None:
        """In the background, for as long as the worker lives; the commit at an input's end says what went wrong."""
        while any(not mount.at.read_only for mount in self._mounts):
            await trio.sleep(COMMIT_S)
            try:
                await self.commit("in the background")
            except Error as error:
                log.info("a volume is not committed in the background: %s", error.what)

    def _say_what_stays(self, mount: Mount) -> None:
        """Once, what cannot travel."""
        for path in mount.folder.left_behind if isinstance(mount, Writable) else ():
            name = f"{mount.at.path}/{path}"
            if name not in self._told:
                self._told.add(name)
                self._say(f"{name!r} is not committed: only files, folders and links inside of the volume are")


class Writable:
    """A `Mount` that a function can write to."""

    def __init__(self, at: VolumeMount, folder: Folder, trees: Trees, caller: str, asker: _Asker, version: int) -> None:
        self.at, self.folder, self.source = at, folder, folder.source
        self._trees, self._caller, self._asker = trees, caller, asker
        self._version = version
        self._lock = trio.Lock()

    async def commit(self, what: str) -> int:
        async with self._lock:
            with _folder_errors():
                return await self._commit(what)

    async def _commit(self, what: str) -> int:
        images = self._trees.images
        with own_errors():
            found = await trio.to_thread.run_sync(self.folder.look)
            change = await images.keeper.write(partial(trio.to_thread.run_sync, self.folder.pack, found))
            if change is None:
                return self._version
            await images.keeper.hold(change.image)
            try:
                at = await self._asker.ask(CommitVolume(self.at.id, change.image, what))
            finally:
                images.release(change.image)
                await trio.to_thread.run_sync(images.keeper.shelf.forget, change.image)
            await trio.to_thread.run_sync(self.folder.committed, change)
        self._version = at.version
        return at.version

    async def reload(self) -> int:
        async with self._lock:
            with _folder_errors():
                await self._commit("before a reload")
            head = await self._asker.head(self.at.id)
            with own_errors():
                if head.image:
                    await self._trees.fetch(head.image, [self._caller])
                tree = await self._trees.load(head.image, [self._caller])
                await trio.to_thread.run_sync(self.folder.show, tree)
            self._version = head.version
            return head.version


@contextmanager
def _folder_errors() -> Iterator[None]:
    """What the machine's disk refuses is no reason to end anything else."""
    try:
        yield
    except OSError as error:
        raise SandboxError("The folder of a volume cannot be read.", why=str(error)) from None


class Shown:
    """A `Mount` that can only be read: hard links to files that all workers here share."""

    def __init__(self, at: VolumeMount, place: Path, trees: Trees, caller: str, asker: _Asker) -> None:
        self.at, self._trees, self._caller, self._asker = at, trees, caller, asker
        self._top, self._staging = place / "files", place / "staging"
        for folder in (self._top, self._staging):
            folder.mkdir(parents=True)
        # Only the folder that is bound is for the code's user to reach.
        place.chmod(0o700)
        self._top.chmod(0o755)
        # What is bound into the sandbox.
        self.source = self._top
        self._tree, self._version = EMPTY, 0
        self._lock = trio.Lock()

    async def show(self, head: VolumeAt, root: Path) -> None:
        """Show a version, of which `root` has the files."""
        with own_errors(), _folder_errors():
            tree = await self._trees.load(head.image, [self._caller])
            linked = partial(write, links=root / TOP)
            await trio.to_thread.run_sync(linked, self._trees.store, self._tree, tree, self._top, self._staging)
        self._tree, self._version = tree, head.version

    async def commit(self, what: str) -> int:
        raise _only_read(self.at)

    async def reload(self) -> int:
        async with self._lock:
            head = await self._asker.head(self.at.id)
            if head.image and head.version != self._version:
                images = self._trees.images
                await images.keeper.hold(head.image)
                try:
                    await images.fetch_from(head.image, [self._caller])
                    await self.show(head, await images.keeper.tree(head.image, PRIVATE))
                finally:
                    images.release(head.image)
            return self._version


class Fixed:
    """A `Mount` that shows one version for as long as the worker lives: mounted lazily, or of nothing yet."""

    def __init__(self, at: VolumeMount, source: Path, asker: _Asker, head: VolumeAt) -> None:
        self.at, self.source, self._asker, self._head = at, source, asker, head

    async def commit(self, what: str) -> int:
        raise _only_read(self.at)

    async def reload(self) -> int:
        if (await self._asker.head(self.at.id)).version != self._head.version:
            raise InvalidError(
                f"{self.at.path} shows one version for as long as its worker lives.",
                why="it can only be read, and is fetched as that happens, or was empty",
                fix="Mount it so that it can be written to, or read what is new by listdir() and read_file().",
            )
        return self._head.version


class _Asker:
    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def head(self, volume: str) -> VolumeAt:
        return await self.ask(AskHead(volume))

    async def ask(self, request: AskHead | CommitVolume) -> VolumeAt:
        answer: StateAnswer = wire.decode(await self._ask(wire.encode(request)), StateAnswer)
        if not isinstance(answer, VolumeAt):
            raise InvalidError("The caller's node answered something else.", fix="Upgrade the older of both nodes.")
        return answer


def _too_much(found: str) -> ResourceExceededError:
    return ResourceExceededError(
        f"What a function wrote to a volume {found}, where it ran.",
        fix="Write less, leave folders readable, or ask the machine's owner for more room (`volume_gib`).",
    )


def _only_read(at: VolumeMount) -> InvalidError:
    return InvalidError(f"{at.path} can only be read, so there is nothing to commit.")


def _inside(top: Path, sub_path: str) -> Path:
    """A folder of a tree that can only be read. Raises `InvalidError` for what is none, or leads elsewhere."""
    found = top
    for name in filter(None, sub_path.split("/")):
        found = found / name
        if name == ".." or found.is_symlink() or not found.is_dir():
            raise InvalidError(f"The volume has no folder {sub_path}.", fix="Give another sub_path.")
    return found
