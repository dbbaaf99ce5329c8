"""A volume's tree, or what changed in it, written to a folder that a function may be writing to at the same time.

Each file is written where the function cannot reach it and then takes its place at once, by its name in the open
parent folder: no link can redirect it, and whoever has the old file open keeps that.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from potluck_images.errors import ImageError
from potluck_images.manifest import ChunkRef, Dir, Entry, File, Manifest, Symlink, sort_key
from potluck_images.packfile import clearer
from potluck_images.store import ChunkStore
from potluck_images.volume_scan import Stamp, parent_of, status_of
from potluck_images.volume_tree import check_entry, nodes, same


def write(
    store: ChunkStore, before: Manifest, after: Manifest, folder: Path, staging: Path, owner: int = -1,
    links: Path | None = None,
) -> dict[str, Stamp]:  # fmt: skip
    """Have `folder`, which shows `before`, show `after`; returns the stamps of the files that were written.

    What the function made itself stays, unless something of `after` has its place. All belongs to the user `owner`.
    `staging` is an empty folder on the same file system. With `links`, which shows `after` to others, too, files are
    hard links to those there where that is possible; then nobody may write to `folder`. Raises what the store raises,
    `ImageError`, `StoreFullError`.
    """
    old, new = nodes(before), nodes(after)
    writer = _Writer(store, folder, staging, owner, links)
    try:
        for path in sorted(old.keys() - new.keys(), key=sort_key, reverse=True):
            writer.remove(path)
        for path, node in new.items():
            check_entry(node.entry)
            if path not in old or not same(node.entry, old[path].entry):
                writer.put(path, node.entry, node.chunks)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ENOENT, errno.ELOOP):
            why, fix = f"{error.strerror}: {error.filename}", "Leave the volume's folders alone while it is reloaded."
            raise ImageError("The volume's folder changed while it was written to.", why=why, fix=fix) from None
        raise clearer(error) from None
    files = [path for path in writer.written if isinstance(new[path].entry, File)]
    return {path: Stamp.of(status) for path in files if (status := status_of(folder, path))}


class _Writer:
    def __init__(self, store: ChunkStore, folder: Path, staging: Path, owner: int, links: Path | None) -> None:
        self._store, self._folder, self._new, self._owner = store, folder, staging / "new", owner
        self._links = links
        self.written: list[str] = []

    def remove(self, path: str) -> None:
        """Not what lies in a folder that is gone, or behind a link; not a folder with something left in it."""
        with suppress(OSError), parent_of(self._folder, path) as (parent, name):
            if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                os.rmdir(name, dir_fd=parent)
            else:
                os.unlink(name, dir_fd=parent)

    def put(self, path: str, entry: Entry, chunks: tuple[ChunkRef, ...]) -> None:
        match entry:
            case Dir():
                os.mkdir(self._new, 0o755)
            case Symlink():
                os.symlink(entry.target, self._new)
            case File():
                if not self._is_linked(path):
                    self._write(entry, chunks)
        if not self._links:
            os.chown(self._new, self._owner, self._owner, follow_symlinks=False)
        with parent_of(self._folder, path) as (parent, name):
            self._place(name, parent, isinstance(entry, Dir))
        self.written.append(path)

    def _place(self, name: str, parent: int, is_folder: bool) -> None:
        try:
            is_there = stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            os.rename(self._new, name, dst_dir_fd=parent)
            return
        if is_folder and is_there:
            os.rmdir(self._new)
            return
        if is_there:
            shutil.rmtree(name, dir_fd=parent)
        elif is_folder:
            os.unlink(name, dir_fd=parent)
        os.rename(self._new, name, dst_dir_fd=parent)

    def _is_linked(self, path: str) -> bool:
        if self._links:
            with suppress(OSError):
                os.link(self._links / path, self._new, follow_symlinks=False)
                return True
        return False

    def _write(self, entry: File, chunks: tuple[ChunkRef, ...]) -> None:
        with self._new.open("xb") as file:
            for piece in entry.pieces:
                data = self._store.get(chunks[piece.chunk].digest)
                file.write(memoryview(data)[piece.offset : piece.offset + piece.size])
            os.fchmod(file.fileno(), entry.mode)
