"""Roots that can be written to: what a worker writes to its root is kept beside the image, and can become an image.

A tree that all such workers of an image share lies below; where the node is root it is one of its own, which the code's
user owns (`sandbox.overlay`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import trio

from potluck.errors import Error, ResourceExceededError, SandboxError
from potluck.wire.common import FunctionSpec
from potluck_images.changes import changed_tree
from potluck_images.errors import ImageBuildError
from potluck_images.image import get_config, put_config
from potluck_images.materialise import Root, materialise, prune
from potluck_images.pack import pack
from potluck_images.secrecy import check_result
from potluck_images.still import copy_still
from potluck_images.tree import Tree
from potluck_images.volume_scan import FILES_MAX
from potluck_node.images import ImageService
from potluck_node.sandbox import overlay
from potluck_node.store_errors import own_errors
from potluck_node.volumes.folder import check_room, remove

# As a watch of volumes: how often it is looked how much was written, seconds; and of the time that looking takes, how
# much longer the pause is.
LOOK_S, PAUSES = 0.5, 20.0

# Told what ends the worker; told what stays behind.
Broken = Callable[[Error], None]
Say = Callable[[str], None]


@dataclass
class WritableRoot:
    """The root of one worker: `tree` as it was, `place` with what was written since (`sandbox.overlay`)."""

    tree: Path
    place: Path
    _roots: Roots
    _function: FunctionSpec

    def __post_init__(self) -> None:
        self._lock = trio.Lock()
        self._made: list[str] = []

    async def snapshot(self, say: Say) -> str:
        """Make an image of it as it is; returns its id. It is kept here at least until the worker ends. Raises
        `potluck.errors.Error`."""
        async with self._lock:
            images = self._roots.images
            image = await images.make(partial(self._pack, say), f"snapshot of {self._function.app}")
            await images.keeper.hold(image)
            self._made.append(image)
            return image

    def _pack(self, say: Say) -> str:
        """For a thread."""
        still = self.place / "still"
        told: list[str] = []
        try:
            copy_still(overlay.upper(self.place), still, self._roots.bytes_max, FILES_MAX, told.append)
            tree = changed_tree(still, self.tree, told.append)
            check_result(tree, dict(self._function.secrets))
            image = self._roots.put(self._function.image, tree)
        except OSError as error:
            raise ImageBuildError("The root of the sandbox cannot be read.", why=str(error)) from None
        finally:
            remove(still)
        for text in dict.fromkeys(told):
            trio.from_thread.run_sync(say, text)
        return image

    def close(self) -> None:
        for image in self._made:
            self._roots.images.release(image)


class Roots:
    """`bytes_max` bounds what one worker writes to its root."""

    def __init__(self, home: Path, images: ImageService, bytes_max: int) -> None:
        self.images, self.bytes_max = images, bytes_max
        self._trees, self._places = home / "roots" / "trees", home / "roots" / "written"
        remove(self._places)
        for folder in (self._trees, self._places):
            folder.mkdir(parents=True, exist_ok=True)
        self._numbers = iter(range(1, 1 << 62))
        self._shared = trio.Lock()
        self._held: dict[str, tuple[Root, int]] = {}
        # Why none can be made here; None before it was tried.
        self._trouble: str | None = None

    @asynccontextmanager
    async def open(self, function: FunctionSpec, broken: Broken) -> AsyncIterator[WritableRoot]:
        """That of one worker, until the block ends. The image is in use. Raises `potluck.errors.Error`."""
        await self._try()
        tree = await self._hold(function.image)
        place = self._places / str(next(self._numbers))
        root = WritableRoot(tree, place, self, function)
        try:
            await trio.to_thread.run_sync(overlay.make, place)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, root, broken)
                yield root
                nursery.cancel_scope.cancel()
        finally:
            root.close()
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(remove, place)
                self._release(function.image)

    async def _try(self) -> None:
        if self._trouble is None:
            self._trouble = await trio.to_thread.run_sync(overlay.trial, self._places)
        if self._trouble:
            raise SandboxError(
                "Roots cannot be written to on this machine.",
                why=self._trouble,
                fix="Linux 5.11 or newer is needed, and the node's data folder on a file system such as ext4 or xfs.",
            )

    async def _hold(self, image: str) -> Path:
        """One user more of the tree that all share."""
        async with self._shared:
            if image not in self._held:
                await self._drop_idle()
                with own_errors():
                    self._held[image] = await trio.to_thread.run_sync(self._make, image), 0
            root, users = self._held[image]
            self._held[image] = root, users + 1
            return root.path

    def _make(self, image: str) -> Root:
        root = materialise(self.images.store, image, self._trees)
        overlay.own_tree(root.path)
        return root

    def _release(self, image: str) -> None:
        """The tree stays for the next worker, until another image needs one."""
        root, users = self._held[image]
        self._held[image] = root, users - 1

    async def _drop_idle(self) -> None:
        for image in [image for image, (_, users) in self._held.items() if not users]:
            self._held.pop(image)[0].release()
        with own_errors():
            await trio.to_thread.run_sync(prune, self._trees, self.images.store)

    async def _watch(self, root: WritableRoot, broken: Broken) -> None:
        while True:
            began = trio.current_time()
            try:
                await trio.to_thread.run_sync(self._check, root)
            except Error as error:
                broken(error)
                return
            await trio.sleep(max(LOOK_S, PAUSES * (trio.current_time() - began)))

    def _check(self, root: WritableRoot) -> None:
        if found := check_room(overlay.upper(root.place), self.bytes_max):
            raise ResourceExceededError(
                f"What was written to the sandbox's root {found}.",
                fix="Write less, run it on a machine with more room, or ask for a larger `volume_gib` there.",
            )

    def put(self, image: str, tree: Tree) -> str:
        """The image with one layer more; for a thread."""
        store = self.images.store
        with store.batch():
            layer = pack(tree, store)
            config = get_config(store, image)
            return put_config(store, msgspec.structs.replace(config, layers=(*config.layers, layer)))
