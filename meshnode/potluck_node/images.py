"""The node's images: built for its own callers, pulled from peers, materialised for its sandboxes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import trio

from potluck.errors import Error, from_kind
from potluck.wire.lease import LeaseProgress
from potluck.wire.offer import OFFER_LIST_MAX
from potluck_images.build import build
from potluck_images.definition import ImageDefinition
from potluck_images.disk import DiskStore
from potluck_images.errors import ImageStoreError
from potluck_images.image import get_config
from potluck_images.materialise import Root, materialise
from potluck_images.pull import Progress, missing_chunks
from potluck_node.builder import BwrapWorkshop
from potluck_node.chunks import Puller, serve_chunks
from potluck_node.clock import Clock
from potluck_node.core.offers import OfferBook
from potluck_node.pool import ReadyImage
from potluck_node.transport.interface import Stream, Transport

log = logging.getLogger("potluck.images")

# Builds at once: each may use every core.
BUILDS_MAX = 1


class ImageService:
    """All work on the store happens in threads; one build, and one pull of each image, at a time."""

    def __init__(self, home: Path, bytes_max: int, transport: Transport, book: OfferBook, clock: Clock) -> None:
        with own_errors():
            self.store = DiskStore(home / "store", bytes_max)
        self._home, self._transport, self._book, self._clock = home, transport, book, clock
        self._roots: dict[str, Root] = {}
        self._users: Counter[str] = Counter()
        self._locks: dict[str, trio.Lock] = {}
        self._builds = trio.CapacityLimiter(BUILDS_MAX)
        self._workshop = BwrapWorkshop()
        self._names = home / "images"
        self._names.mkdir(parents=True, exist_ok=True)
        self._held = self._read_names()
        self.changed: Callable[[], None] = lambda: None

    def held(self) -> tuple[str, ...]:
        """Images that are here, whole, the newest first."""
        return self._held

    def _read_names(self) -> tuple[str, ...]:
        names = sorted(self._names.iterdir(), key=lambda path: -path.stat().st_mtime)
        return tuple(path.name for path in names[:OFFER_LIST_MAX])

    def _note(self, image: str) -> None:
        (self._names / image).touch()
        self._held = self._read_names()
        self.changed()

    async def build(self, definition: ImageDefinition, progress: Callable[[str], None]) -> tuple[str, str]:
        """(image id, "major.minor" of its Python). Raises `ImageBuildError` and other errors of `potluck.errors`."""

        said = ""

        def say(stage: str, text: str) -> None:
            """Called again and again while a step is silent, so that it can be cancelled."""
            nonlocal said
            trio.from_thread.check_cancelled()
            if text and text != said:
                said = text
                trio.from_thread.run_sync(progress, f"building the image: {stage} {text}")

        with own_errors():
            cache = self._home / "build"
            image = await trio.to_thread.run_sync(
                partial(build, definition, self.store, cache, say, self._workshop), limiter=self._builds
            )
            config = await trio.to_thread.run_sync(get_config, self.store, image)
        self._note(image)
        return image, ".".join(config.python_version.split(".")[:2])

    async def ensure(self, image: str, caller: str, progress: Callable[[LeaseProgress], None]) -> ReadyImage:
        """Have the image on disk and in use until `release`. Raises `potluck.errors.Error`."""
        lock = self._locks.setdefault(image, trio.Lock())
        self._users[image] += 1
        try:
            async with lock:
                with own_errors():
                    return await self._ensure(image, caller, progress)
        except BaseException:
            self.release(image)
            raise

    async def _ensure(self, image: str, caller: str, progress: Callable[[LeaseProgress], None]) -> ReadyImage:
        if await self._lacks(image):
            await self._pull(image, caller, progress)
        if image not in self._roots:
            home = self._home / "trees"
            self._roots[image] = await trio.to_thread.run_sync(materialise, self.store, image, home)
        config = await trio.to_thread.run_sync(get_config, self.store, image)
        return ReadyImage(self._roots[image].path, config.python, config.workdir, dict(config.env))

    async def _lacks(self, image: str) -> bool:
        return image not in self._roots and bool(await trio.to_thread.run_sync(_missing, self.store, image))

    async def _pull(self, image: str, caller: str, progress: Callable[[LeaseProgress], None]) -> None:
        """From the caller and everyone whose offer names the image."""
        holders = [offer.peer for offer in self._book.fresh(self._clock.now_us()) if image in offer.images]
        peers = [peer for peer in dict.fromkeys([caller, *holders]) if peer != self._transport.peer]
        log.info("pulling image %s from %d peers", image[:12], len(peers))

        def say(at: Progress) -> None:
            progress(LeaseProgress("image", at.done, at.total))

        await Puller(self._transport, self.store, self._clock, image).run(peers, say)
        self._note(image)

    def release(self, image: str) -> None:
        """One user less; the tree stays for the next."""
        self._users[image] -= 1

    async def serve(self, stream: Stream) -> None:
        """Handle one incoming chunk stream."""
        await serve_chunks(self.store, self._clock, stream)

    def close(self) -> None:
        for root in self._roots.values():
            root.release()
        self.store.close()


def _missing(store: DiskStore, image: str) -> bool:
    return bool(missing_chunks(store, image))


@contextmanager
def own_errors() -> Iterator[None]:
    """Errors of the image store under their names in `potluck.errors`."""
    try:
        yield
    except ImageStoreError as error:
        raise _own(error) from None
    except BaseExceptionGroup as group:
        found = group.subgroup(ImageStoreError)
        if found is None:
            raise
        raise _own(_first(found)) from None


def _own(error: ImageStoreError) -> Error:
    return from_kind(error.kind, error.what, why=error.why, fix=error.fix)


def _first(group: BaseExceptionGroup[ImageStoreError]) -> ImageStoreError:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
