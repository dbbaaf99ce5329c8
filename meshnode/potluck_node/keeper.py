"""What images may take of this node's disk: room is made before it is needed, and never at the cost of what is used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec
import trio

from potluck.errors import Error, NotFoundError, ResourceExceededError, StoreFullError
from potluck_images.disk import DiskStore
from potluck_images.keep import QUIET_TIMEOUT_S, Shelf
from potluck_images.keep_facts import Pruned
from potluck_images.keep_locks import Hold
from potluck_images.keep_report import tree_bytes
from potluck_images.materialise import Root, materialise, prune
from potluck_node.store_errors import own_errors

# Kept free for the next build or pull, a quarter of a small store: nearly all images fit in.
ROOM_BYTES = 4 << 30

T = TypeVar("T")


class Keeper:
    """`bytes_max` caps packs and materialised trees together. Methods raise `potluck.errors.Error`."""

    def __init__(self, home: Path, store: DiskStore, bytes_max: int) -> None:
        self.store, self.bytes_max = store, bytes_max
        self.shelf, self.trees = Shelf(home, store), home / "trees"
        self.trees.mkdir(parents=True, exist_ok=True)
        self._users: Counter[str] = Counter()
        self._holds: dict[str, Hold] = {}
        self._roots: dict[str, Root] = {}
        # Looking at each file takes a moment, and each build asks; None after a change.
        self._tree_bytes: int | None = None
        # Called after images were removed.
        self.removed: Callable[[], None] = lambda: None

    # Use

    async def hold(self, image: str) -> None:
        """Use the image: it is not removed, by no process, until `release`."""
        self._users[image] += 1
        try:
            with own_errors():
                hold = await trio.to_thread.run_sync(self.shelf.hold, image)
        except BaseException:
            self.release(image)
            raise
        if self._holds.setdefault(image, hold) is not hold:
            hold.release()

    def release(self, image: str) -> None:
        """One user less; the tree stays for the next, until its room is needed."""
        self._users[image] -= 1
        if self._users[image] <= 0:
            del self._users[image]
            if hold := self._holds.pop(image, None):
                hold.release()

    def has_tree(self, image: str) -> bool:
        return image in self._roots

    async def tree(self, image: str, label: str = "") -> Path:
        """The image as a folder; it is held by the caller, and was used now."""
        self.shelf.note(image, label)
        if image not in self._roots:
            with own_errors():
                self._roots[image] = await trio.to_thread.run_sync(materialise, self.store, image, self.trees)
            self._tree_bytes = None
        return self._roots[image].path

    async def pin(self, image: str, reason: str) -> None:
        """Keep the image until `unpin`. Raises `NotFoundError`; `ResourceExceededError` when too little room would be
        left for others."""
        await self.hold(image)
        try:
            with own_errors():
                self.shelf.find(image)
                taken = await trio.to_thread.run_sync(self.shelf.pinned_bytes, image)
                if taken > self.bytes_max - self._spare:
                    raise _too_much(taken, self.bytes_max, self._spare)
                await trio.to_thread.run_sync(self.shelf.pin, image, reason)
        finally:
            self.release(image)

    def unpin(self, image: str, reason: str) -> None:
        """Raises `NotFoundError` when it is not pinned for this reason."""
        reasons = [why for pinned, why in self.shelf.pins() if pinned == image]
        if reason not in reasons:
            why = f"it is kept as: {', '.join(reasons)}" if reasons else ""
            raise NotFoundError(f"The image {image[:12]} is not pinned.", why=why, fix="See `potluck image ls`.")
        self.shelf.unpin(image, reason)

    # Room

    @property
    def _spare(self) -> int:
        return min(ROOM_BYTES, self.bytes_max // 4)

    async def write(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do what puts an image into the store and notes it. Some room is made first if that can be done at once; when
        it was too little, a lot of room is made and the work is done once more."""
        with suppress(Error):
            await self._make_room(self.bytes_max - self._spare, 0)
        try:
            return await self._write(work)
        except StoreFullError:
            if not await self._clear_half():
                raise
        return await self._write(work)

    async def _write(self, work: Callable[[], Awaitable[T]]) -> T:
        writing = await trio.to_thread.run_sync(self.shelf.hold_writing)
        try:
            with own_errors():
                return await work()
        finally:
            writing.release()

    async def _clear_half(self) -> bool:
        """Whether any room was won."""
        used = await trio.to_thread.run_sync(self._used)
        with suppress(Error):  # others build or pull all the time
            return await self._make_room(min(used, self.bytes_max) // 2, QUIET_TIMEOUT_S) > 0
        return False

    async def _make_room(self, bytes_max: int, timeout_s: float) -> int:
        """Bring packs and trees down to `bytes_max` if that can be done; returns the bytes won."""
        used = await trio.to_thread.run_sync(self._used)
        if used <= bytes_max:
            return 0
        await self._drop_idle_trees()
        with own_errors():
            left = await trio.to_thread.run_sync(self._used) - self.store.disk_bytes()
            await trio.to_thread.run_sync(self.shelf.make_room, max(0, bytes_max - left), timeout_s)
        self.removed()
        return used - await trio.to_thread.run_sync(self._used)

    async def remove(self, images: list[str], say: Callable[[str], None]) -> Pruned:
        """Remove images that nobody uses, idle trees, and chunks that no image needs."""
        used = await trio.to_thread.run_sync(self._used)
        await self._drop_idle_trees()
        with own_errors():
            pruned = await trio.to_thread.run_sync(self.shelf.remove, images, say)
        self.removed()
        return msgspec.structs.replace(pruned, bytes_won=used - await trio.to_thread.run_sync(self._used))

    def _used(self) -> int:
        if self._tree_bytes is None:
            self._tree_bytes = tree_bytes(self.trees)
        return self.store.disk_bytes() + self._tree_bytes

    async def _drop_idle_trees(self) -> None:
        """Trees that no worker uses: they are made again in a moment."""
        for image in [image for image in self._roots if image not in self._users]:
            self._roots.pop(image).release()
        with own_errors():
            await trio.to_thread.run_sync(prune, self.trees, self.store)
        self._tree_bytes = None

    def close(self) -> None:
        for root in self._roots.values():
            root.release()
        for hold in self._holds.values():
            hold.release()


def _too_much(taken: int, bytes_max: int, spare: int) -> ResourceExceededError:
    return ResourceExceededError(
        "Too little room would be left for other images.",
        why=f"what is pinned would take {taken >> 20} MiB of the {bytes_max >> 20} MiB of the store, of which "
        f"{spare >> 20} MiB are for the next build or pull",
        fix="Unpin others (see `potluck image ls`), or raise store_gib in config.toml and restart.",
    )
