"""An image as a folder: hard links into a cache of files by content.

Everything lies below `<home>/<boot>`, where `boot` names the current boot of the machine: nothing here is made durable,
so nothing here is believed after a power cut. The chunks in the store are, and a root is made again in a moment.

The image is written into a fresh folder, each name relative to an open parent folder, and then renamed: no link in any
layer can redirect a write, and a half-written root is never seen.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from potluck_images.digest import from_hex
from potluck_images.errors import ImageError
from potluck_images.filecache import MTIME_S, FileCache
from potluck_images.image import get_config, get_manifests
from potluck_images.manifest import LAYER_BYTES_MAX, File, Manifest
from potluck_images.merge import Leaf, MergedTree, merge
from potluck_images.packfile import clearer
from potluck_images.store import ChunkStore

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass
class Root:
    """A materialised image, kept by `prune` until `release`, or until this process ends."""

    path: Path
    _lock: int = field(repr=False)

    def release(self) -> None:
        """May be called more than once."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *error: object) -> None:
        self.release()


def materialise(store: ChunkStore, image: str, home: Path, bytes_max: int = LAYER_BYTES_MAX) -> Root:
    """The root of `image` below `home`: read-only files, folders 0755, readable by every user. At once if it is there.

    Blocking; several threads and processes may call it at once. `bytes_max` limits the bytes of all layers' files.
    Raises `NotFoundError` (pull the image first), `CorruptDataError`, `ImageError`, `StoreFullError`.
    """
    place = _place(home)
    from_hex(image)
    with _locked(place / "lock", fcntl.LOCK_SH):
        root = Root(place / "roots" / image, _hold(place / "locks" / image))
        try:
            if not root.path.exists():
                _write_root(store, image, place, bytes_max)
        except BaseException:
            root.release()
            raise
    return root


def prune(home: Path, store: ChunkStore) -> list[str]:
    """Remove roots that nobody holds, files that no root uses, and what earlier boots left; returns the image ids.

    Waits while a root is being written.
    """
    place = _place(home)
    for other in home.iterdir():
        if other != place:
            shutil.rmtree(other, ignore_errors=True)
    with _locked(place / "lock", fcntl.LOCK_EX):
        removed = [path.name for path in (place / "roots").iterdir() if _remove_if_free(place, path.name)]
        for left in (place / "new").iterdir():
            shutil.rmtree(left)
        FileCache(place / "files", store).remove_unused()
    return removed


def _place(home: Path) -> Path:
    place = home / _BOOT_ID.read_text().strip()
    for name in ("roots", "locks", "new", "files"):
        (place / name).mkdir(parents=True, exist_ok=True)
    return place


@contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _hold(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def _remove_if_free(place: Path, image: str) -> bool:
    lock = place / "locks" / image
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Away from its name first: a death half-way must not leave half a root there.
        doomed = (place / "roots" / image).rename(place / "new" / secrets.token_hex(8))
        shutil.rmtree(doomed)
        lock.unlink()
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _write_root(store: ChunkStore, image: str, place: Path, bytes_max: int) -> None:
    layers = get_manifests(get_config(store, image), store.get)
    _check_size(layers, bytes_max)
    tree = merge(layers)
    cache = FileCache(place / "files", store)
    cache.fill(_files(tree))
    new = place / "new" / secrets.token_hex(8)
    new.mkdir()
    try:
        _write_folder(tree, cache, str(new), None)
        new.rename(place / "roots" / image)
    except OSError as error:
        # When the root is there, another thread or process was faster, with the same content.
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise clearer(error) from None
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _check_size(layers: tuple[Manifest, ...], bytes_max: int) -> None:
    size = sum(layer.size for layer in layers)
    if size > bytes_max:
        raise ImageError(
            f"The image has {size >> 20} MiB; at most {bytes_max >> 20} MiB are accepted here.",
            fix="Make the image smaller, or ask for the limit to be raised.",
        )


def _files(tree: MergedTree) -> Iterator[tuple[File, Manifest]]:
    for below in tree.values():
        if isinstance(below, dict):
            yield from _files(below)
        elif isinstance(below.entry, File):
            yield below.entry, below.layer


def _write_folder(tree: MergedTree, cache: FileCache, name: str, parent: int | None) -> None:
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        for child, below in tree.items():
            if isinstance(below, Leaf):
                _write_leaf(below, cache, child, folder)
            else:
                os.mkdir(child, 0o755, dir_fd=folder)
                _write_folder(below, cache, child, folder)
        os.fchmod(folder, 0o755)
        os.utime(folder, (MTIME_S, MTIME_S))
    finally:
        os.close(folder)


def _write_leaf(leaf: Leaf, cache: FileCache, name: str, folder: int) -> None:
    if isinstance(leaf.entry, File):
        cache.link(leaf.entry, name, folder)
    else:
        os.symlink(leaf.entry.target, name, dir_fd=folder)
        os.utime(name, (MTIME_S, MTIME_S), dir_fd=folder, follow_symlinks=False)
