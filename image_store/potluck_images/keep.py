"""Keeping house: which images are here, which of them may go, and the room that they take.

An image is *on the shelf* when all of it is in the store. Its note's time stamp is its last use. Images in use are held
by a lock of the kernel, so that neither this process nor another removes them. Removing takes the note away first: a
death half-way leaves chunks that nothing reaches, and these go first when room is made next.
"""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from potluck_images.digest import from_hex
from potluck_images.disk import DiskStore
from potluck_images.errors import ImageError, NotFoundError
from potluck_images.keep_facts import Pruned
from potluck_images.keep_locks import Hold, alone, hold, try_alone
from potluck_images.keep_reach import Reach, reach

# Chunks are removed only while nobody builds or pulls: what they count on must stay. Asked for by a user, or with the
# store full, waiting this long is better than an error.
QUIET_TIMEOUT_S = 60.0
# Dead chunks remain in packs that are mostly alive; with a tenth to spare, the room asked for is there.
LIVE_SHARE = 0.9
# Packs are rewritten when this much of them is in use, if less thorough work did not give the room asked for.
THOROUGH_LIVE_SHARE_MAX = 0.95
# Digits of an image id that name it for a user; 8 of them are unique among 10,000 images but once in 90 times.
PREFIX_MIN = 4
LABEL_BYTES_MAX = 512
# The label of versions of volumes: who knows the id of an image can fetch it, so these are told to nobody, and lists of
# images are not of them.
PRIVATE = "a volume's version"


class Note(NamedTuple):
    """An image on the shelf. `used_us`: Unix time of the last use."""

    image: str
    label: str
    used_us: int


class Shelf:
    """`home` holds the notes and locks. All methods block and may be called from several threads and processes."""

    def __init__(self, home: Path, store: DiskStore) -> None:
        self._notes, self._holds, self._pins = home / "images", home / "holds", home / "pins"
        for folder in (self._notes, self._holds, self._pins):
            folder.mkdir(parents=True, exist_ok=True)
        self.store = store

    # What is here

    def note(self, image: str, label: str = "") -> None:
        """The image is whole, and used now. An empty `label` keeps the one it has.

        For a new image to be called inside `writing`, or with the image held: before, nothing reaches its chunks.
        """
        path = self._notes / image
        if label or not path.exists():
            fresh = self._holds / f".{secrets.token_hex(8)}"
            fresh.write_text(label[:LABEL_BYTES_MAX])
            fresh.replace(path)
        os.utime(path)

    def notes(self) -> list[Note]:
        """The last used first."""
        found = []
        for path in self._notes.iterdir():
            try:
                found.append(Note(path.name, path.read_text(), path.stat().st_mtime_ns // 1000))
            except FileNotFoundError:  # removed by another process meanwhile
                continue
        return sorted(found, key=lambda note: -note.used_us)

    def find(self, name: str) -> str:
        """The image id that a label, an id or its first digits name. Raises `NotFoundError`, `ImageError`."""
        notes = self.notes()
        labelled = [note.image for note in notes if note.label == name]
        begun = [note.image for note in notes if len(name) >= PREFIX_MIN and note.image.startswith(name)]
        found = labelled[:1] or begun
        if not found:
            raise NotFoundError(f"No image {name!r} is on this node.", fix="See `potluck image ls`.")
        if len(found) > 1:
            raise ImageError(f"{name!r} names {len(found)} images.", fix="Give more digits of the id.")
        return found[0]

    # What must stay

    def pin(self, image: str, reason: str) -> None:
        """Never remove this image, whoever asks, until `unpin` with the same reason; also after a restart."""
        (self._pins / f"{image}.{reason}").touch()

    def unpin(self, image: str, reason: str) -> None:
        (self._pins / f"{image}.{reason}").unlink(missing_ok=True)

    def forget(self, image: str) -> None:
        """Take an image off the shelf that nobody pins: its chunks go when room is made, unless it is held."""
        if not any(self._pins.glob(f"{image}.*")):
            (self._notes / image).unlink(missing_ok=True)
            self._is_wanted(self._holds / image)

    def pinned_bytes(self, image: str) -> int:
        """What the store would take if all went but this image and what is pinned."""
        found = reach(self.store, {image, *(pinned for pinned, _ in self.pins())})
        sizes = self.store.sizes()
        return sum(sizes.get(digest, 0) for digest in set[bytes]().union(*(each.chunks for each in found.values())))

    def pins(self) -> list[tuple[str, str]]:
        """All pins, as (image, reason)."""
        return [(path.name[:64], path.name[65:]) for path in self._pins.iterdir()]

    # What is in use

    def hold(self, image: str) -> Hold:
        """Keep the image, or what there is of it, from being removed until `release` or the end of the process."""
        from_hex(image)
        return hold(self._holds / image)

    def is_held(self, image: str) -> bool:
        lock = try_alone(self._holds / image)
        if lock:
            lock.release()
        return lock is None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """While an image is being built or pulled, nothing is removed: it may count on any chunk that is here."""
        lock = self.hold_writing()
        try:
            yield
        finally:
            lock.release()

    def hold_writing(self) -> Hold:
        """As `writing`, until `release`."""
        return hold(self._holds / "writing")

    # What goes

    def remove(self, images: list[str], progress: Callable[[str], None] = lambda text: None) -> Pruned:
        """Remove these images and all chunks that no other image needs.

        Raises `ImageError` when images are being built or pulled and that does not end soon.
        """
        with self._quiet(QUIET_TIMEOUT_S), ExitStack() as locks:
            gone = [image for image in images if self._take_off(image, locks)]
            progress("looking for chunks that nothing needs")
            before = self.store.disk_bytes()
            reached = [found.chunks for image, found in self._reach().items() if image not in gone]
            self.store.discard(set(self.store.digests()).difference(*reached))
            # Somebody asked for the room, so it is worth the copying.
            self.store.compact(
                THOROUGH_LIVE_SHARE_MAX, lambda done, total: progress(f"compacting pack {done + 1} of {total}")
            )
        left = tuple(image for image in images if image not in gone)
        return Pruned(tuple(gone), left, before - self.store.disk_bytes())

    def make_room(self, bytes_max: int, timeout_s: float = QUIET_TIMEOUT_S) -> Pruned:
        """Have packs take no more than `bytes_max`: chunks that nothing reaches go first, then the images that were
        not used for the longest time, never those in use. Less is won when all that is left is in use.

        Raises `ImageError` when images are built or pulled for longer than `timeout_s`.
        """
        before = self.store.disk_bytes()
        if before <= bytes_max:
            return Pruned((), (), 0)
        with self._quiet(timeout_s), ExitStack() as locks:
            gone = self._evict(bytes_max * LIVE_SHARE, locks)
            self.store.compact()
            if self.store.disk_bytes() > bytes_max:
                self.store.compact(THOROUGH_LIVE_SHARE_MAX)
        return Pruned(tuple(gone), (), before - self.store.disk_bytes())

    def damaged(self) -> list[str]:
        """Images on the shelf that lack chunks, as after `verify`."""
        reached = reach(self.store, [note.image for note in self.notes()])
        return [image for image, found in reached.items() if not found.readable or self.store.missing(found.chunks)]

    def _evict(self, live_max: float, locks: ExitStack) -> list[str]:
        """Forget chunks until the rest takes `live_max` bytes; returns the images that had to go."""
        sizes, reached = self.store.sizes(), self._reach()
        users = Counter(digest for found in reached.values() for digest in found.chunks)
        self.store.discard(set(sizes) - users.keys())
        live = sum(sizes.get(digest, 0) for digest in users)
        gone = []
        for note in reversed(self.notes()):
            if live > live_max and note.image in reached and self._take_off(note.image, locks):
                gone.append(note.image)
                users.subtract(reached[note.image].chunks)
                unused = [digest for digest in reached[note.image].chunks if not users[digest]]
                self.store.discard(unused)
                live -= sum(sizes.get(digest, 0) for digest in unused)
        return gone

    def _take_off(self, image: str, locks: ExitStack) -> bool:
        """Whether nobody used the image, so that its note is gone. It stays locked until its chunks are gone too: who
        asks for it meanwhile must not find some of them."""
        path = self._holds / image
        lock = None if any(self._pins.glob(f"{image}.*")) else try_alone(path)
        if lock is None:
            return False
        locks.callback(lock.release)
        locks.callback(path.unlink, missing_ok=True)
        (self._notes / image).unlink(missing_ok=True)
        return True

    def _reach(self) -> dict[str, Reach]:
        """The chunks of each image on the shelf, and of others that are held: their pull may go on."""
        here = {note.image for note in self.notes()}
        held = {path.name for path in self._holds.glob("?" * 64) if path.name not in here and self._is_wanted(path)}
        return reach(self.store, here | held)

    def _is_wanted(self, path: Path) -> bool:
        """Whether somebody holds what is not on the shelf; else its lock is removed: anybody may ask for anything."""
        lock = try_alone(path)
        if lock:
            path.unlink(missing_ok=True)
            lock.release()
        return lock is None

    @contextmanager
    def _quiet(self, timeout_s: float) -> Iterator[None]:
        with alone(self._holds / "writing", timeout_s) as quiet:
            if not quiet:
                raise ImageError(
                    "Nothing can be removed while images are built or pulled.", fix="Try again when they are done."
                )
            yield
