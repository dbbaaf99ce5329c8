"""The node's images: built for its own callers, pulled from peers, materialised for its sandboxes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import trio

from potluck.errors import RefusedError
from potluck.wire.lease import LeaseProgress
from potluck.wire.offer import OFFER_LIST_MAX
from potluck_images.build import build
from potluck_images.definition import ImageDefinition
from potluck_images.disk import DiskStore
from potluck_images.image import get_config
from potluck_images.keep import PRIVATE
from potluck_node.builder import BwrapWorkshop
from potluck_node.builds import Builds
from potluck_node.devices.interface import Binding
from potluck_node.fetch import Fetcher, image_key
from potluck_node.keeper import Keeper
from potluck_node.lazy import LazyImages, LazyRoot
from potluck_node.pool import ReadyImage
from potluck_node.store_errors import own_errors

log = logging.getLogger("potluck.images")

# Values of secrets by name, by the number of the step that names them.
Secrets = Mapping[int, Mapping[str, str]]

# Builds at once: each may use every core.
BUILDS_MAX = 1


class ImageService:
    """All work on the store happens in threads; one build, and one pull of each image, at a time."""

    def __init__(
        self, home: Path, bytes_max: int, make_fetcher: Callable[[DiskStore], Fetcher], lazy: str = "never"
    ) -> None:
        with own_errors():
            self.store = DiskStore(home / "store", bytes_max)
        self._home, self.fetcher = home, make_fetcher(self.store)
        self.lazy = LazyImages(home, self.fetcher, self.store, lazy)
        self.keeper = Keeper(home, self.store, bytes_max)
        self.keeper.removed = self._names_changed
        self._locks: dict[str, trio.Lock] = {}
        self._builds = trio.CapacityLimiter(BUILDS_MAX)
        self.builds = Builds()
        self.lend: Callable[[tuple[str, ...]], AbstractContextManager[Binding]] | None = None
        # Why the owner holds back all GPUs that are asked for, or "".
        self.why_held: Callable[[tuple[str, ...]], str] = lambda gpu: ""
        self._workshop = BwrapWorkshop(lend=partial(self._lend, False))
        self._workshop_for_others = BwrapWorkshop(lend=partial(self._lend, True), for_others=True)
        self._held = self._read_names()
        self.changed: Callable[[], None] = lambda: None

    @contextmanager
    def _lend(self, for_others: bool, gpu: tuple[str, ...]) -> Iterator[Binding]:
        """For the thread of a build."""
        if self.lend is None:
            raise RefusedError("No GPU is to be had here.")
        borrowed = self._borrowed(self.lend(gpu), for_others, gpu)
        binding = trio.from_thread.run_sync(borrowed.__enter__)
        try:
            yield binding
        finally:
            trio.from_thread.run_sync(borrowed.__exit__, None, None, None)

    @contextmanager
    def _borrowed(
        self, lent: AbstractContextManager[Binding], for_others: bool, gpu: tuple[str, ...]
    ) -> Iterator[Binding]:
        """As `lent`, and the build is known to hold it."""
        if for_others and (why := self.why_held(gpu)):
            self.builds.held_back(why)
        with lent as binding:
            self.builds.holds(for_others, binding.gpus)
            try:
                yield binding
            finally:
                self.builds.holds(for_others, frozenset())

    def held(self) -> tuple[str, ...]:
        """Images that are here, whole, the newest first."""
        return self._held

    def _read_names(self) -> tuple[str, ...]:
        told = [note.image for note in self.keeper.shelf.notes() if note.label != PRIVATE]
        return tuple(told[:OFFER_LIST_MAX])

    def _note(self, image: str, label: str = "") -> None:
        self.keeper.shelf.note(image, label)
        self._names_changed()

    def _names_changed(self) -> None:
        self._held = self._read_names()
        self.changed()

    async def build(
        self, definition: ImageDefinition, secrets: Secrets, progress: Callable[[str], None], peer: str = ""
    ) -> tuple[str, str]:
        """(image id, "major.minor" of its Python). Raises `ImageBuildError` and other errors of `potluck.errors`, and
        `GaveWayError`.

        `peer` is for whom it is built, "" for this node's own callers. Nobody shares results with others: a step may
        have used secrets, of which the cache knows the names only.
        """

        said = ""

        def say(stage: str, text: str) -> None:
            """Called again and again while a step is silent, so that it can be cancelled."""
            nonlocal said
            trio.from_thread.check_cancelled()
            if text and text != said:
                said = text
                trio.from_thread.run_sync(progress, f"building the image: {stage} {text}")

        cache = self._home / "build" / "for" / peer if peer else self._home / "build"
        workshop = self._workshop_for_others if peer else self._workshop
        with self.builds.running(peer, progress):
            image = await self.make(
                partial(build, definition, self.store, cache, say, workshop, secrets),
                # The owner waits for no peer; whoever asks for peers sees to it that there is one at a time.
                limiter=None if peer else self._builds,
            )
        with own_errors():
            config = await trio.to_thread.run_sync(get_config, self.store, image)
        return image, ".".join(config.python_version.split(".")[:2])

    async def make(self, work: Callable[[], str], label: str = "", limiter: trio.CapacityLimiter | None = None) -> str:
        """Have `work`, in a thread, put an image into the store. Raises `potluck.errors.Error`."""

        async def attempt() -> str:
            image = await trio.to_thread.run_sync(work, limiter=limiter)
            self._note(image, label)
            return image

        return await self.keeper.write(attempt)

    async def mount_private(self, image: str, caller: str, function: str) -> ReadyImage:
        """As `ensure`, for a version of a volume: asked of the caller alone, and told to nobody."""
        await self.keeper.hold(image)
        try:
            with own_errors():
                root = await self.keeper.write(partial(self.lazy.open, image, caller, function, private=True))
                if root:
                    return ReadyImage(root.path, "", "/", {}, root.serve, root.aclose)
                await self.fetch_from(image, [caller])
                return ReadyImage(await self.keeper.tree(image, PRIVATE), "", "/", {})
        except BaseException:
            self.release(image)
            raise

    async def fetch_from(self, image: str, peers: Sequence[str]) -> None:
        """Have all of a version of a volume here, from these peers. Raises `potluck.errors.Error`."""
        with own_errors():
            if not await self.fetcher.lacks(image):
                return

        async def attempt() -> None:
            await self.fetcher.fetch_private(image, peers)
            self.keeper.shelf.note(image, PRIVATE)

        await self.keeper.write(attempt)

    async def ensure(
        self, image: str, caller: str, progress: Callable[[LeaseProgress], None], function: str, whole: bool = False
    ) -> ReadyImage:
        """Have the image usable, all of it at once if `whole`, and in use until `release`. Raises
        `potluck.errors.Error`."""
        lock = self._locks.setdefault(image, trio.Lock())
        await self.keeper.hold(image)
        try:
            async with lock:
                with own_errors():
                    return await self._ensure(image, caller, progress, function, whole)
        except BaseException:
            self.release(image)
            raise

    async def _ensure(
        self, image: str, caller: str, progress: Callable[[LeaseProgress], None], function: str, whole: bool
    ) -> ReadyImage:
        if not self.keeper.has_tree(image):
            root = None if whole else await self.keeper.write(partial(self.lazy.open, image, caller, function))
            if root:
                return await self._ready_root(image, root)
            await self.fetch(image, caller, progress)
        return await self._ready(image, await self.keeper.tree(image))

    async def _ready_root(self, image: str, root: LazyRoot) -> ReadyImage:
        try:
            ready = await self._ready(image, root.path)
        except BaseException:
            await root.aclose()
            raise
        return replace(ready, serve=root.serve, aclose=root.aclose)

    async def _ready(self, image: str, root: Path) -> ReadyImage:
        config = await trio.to_thread.run_sync(get_config, self.store, image)
        return ReadyImage(root, config.python, config.workdir, dict(config.env))

    async def fetch(self, image: str, caller: str, progress: Callable[[LeaseProgress], None]) -> None:
        """Have the whole image in the store, from the mesh if need be. Raises `potluck.errors.Error`."""
        with own_errors():
            if not await self.fetcher.lacks(image):
                return

        async def attempt() -> None:
            await self.fetcher.fetch(image, caller, progress)
            self._note(image)

        await self.keeper.write(attempt)

    def release(self, image: str) -> None:
        """One user less."""
        self.keeper.release(image)

    def provided(self) -> tuple[str, ...]:
        """DHT keys under which this node stands: images that it has, or has part of."""
        return tuple(image_key(image) for image in (*self.fetcher.partial, *self._held))

    def close(self) -> None:
        self.keeper.close()
        self.store.close()
