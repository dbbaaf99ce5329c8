"""One worker's folder of a volume: what it shows, what was written to it since. Blocks; one thread at a time, but for
`check_room`."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from potluck.errors import InvalidError
from potluck_images import volume_tree as vt
from potluck_images.config import ImageConfig
from potluck_images.errors import ImageBuildError
from potluck_images.image import get_manifest, put_config, put_manifest
from potluck_images.manifest import Dir, Entry, Manifest, Symlink
from potluck_images.pack import pack
from potluck_images.store import ChunkStore
from potluck_images.tree import Folder as TreeFolder
from potluck_images.tree import Link, Node
from potluck_images.volume_scan import FILES_MAX, Found, Stamp, scan, settled
from potluck_images.volume_write import write
from potluck_node.sandbox.unprivileged import UNPRIVILEGED_UID

# A disk that is full stops more than functions.
DISK_FREE_BYTES_MIN = 1 << 30
# How often files that change while they are read are looked at again.
PACK_TRIES = 3


@dataclass(frozen=True)
class Packed:
    """What changed, as the only layer of `image`; with it the folder shows `after`."""

    image: str
    after: Manifest
    found: Found
    began_ns: int


class _Looked(NamedTuple):
    found: Found
    began_ns: int


class Folder:
    """Made of `tree` below `place`, a new folder. `source` is what the worker sees: all of it, or `sub_path`.

    Raises `InvalidError`, and what `volume_write` raises.
    """

    def __init__(self, place: Path, store: ChunkStore, tree: Manifest, sub_path: str, bytes_max: int) -> None:
        self._store, self._shown, self.bytes_max = store, tree, bytes_max
        self.top, self._staging = place / "files", place / "staging"
        # Who the code is on this machine (`sandbox.unprivileged`).
        self._owner = UNPRIVILEGED_UID if os.geteuid() == 0 else -1
        for folder in (self.top, self._staging):
            folder.mkdir(parents=True)
        # Only the folder that is bound is for that user to reach.
        place.chmod(0o700)
        self.top.chmod(0o755)
        os.chown(self.top, self._owner, self._owner)
        self._stamps: dict[str, Stamp] = write(store, vt.EMPTY, tree, self.top, self._staging, self._owner)
        self.left_behind: list[str] = []
        self.source = self._folder(sub_path)

    def _folder(self, sub_path: str) -> Path:
        """Made where it is missing; nobody else has been here yet."""
        found = self.top
        for name in filter(None, sub_path.split("/")):
            found = found / name
            if name == ".." or found.is_symlink() or (found.exists() and not found.is_dir()):
                raise InvalidError(f"{sub_path} is no folder of the volume.", fix="Give another sub_path.")
            if not found.exists():
                found.mkdir()
                os.chown(found, self._owner, self._owner)
        return found

    def look(self) -> _Looked:
        """Raises `ImageError` beyond a limit."""
        self._clear()
        began_ns = time.time_ns()
        found = scan(self.top, self._stamps, self._staging)
        self.left_behind = found.left_behind
        return _Looked(found, began_ns)

    def pack(self, looked: _Looked) -> Packed | None:
        """What changed since the last commit, in the store; None for nothing. Raises `ImageBuildError` when files
        change all the time, `StoreFullError`."""
        for attempt in range(PACK_TRIES):
            try:
                return self._pack(looked)
            except ImageBuildError:
                if attempt == PACK_TRIES - 1:
                    raise
                looked = self.look()
            finally:
                self._clear()
        return None

    def _pack(self, looked: _Looked) -> Packed | None:
        found = looked.found
        fresh = dict(found.fresh.sorted())
        if not self._may_differ(found):
            return None
        packed = vt.nodes(get_manifest(self._store, pack(found.fresh, self._store)))
        known = {path: node for path, node in vt.nodes(self._shown).items() if path in found.stamps}
        after = vt.joined({**{path: node for path, node in known.items() if path not in fresh}, **packed})
        change = vt.delta(self._shown, after)
        if not change.entries and not change.removed:
            self._stamps |= settled(found.stamps, self.top, looked.began_ns)
            return None
        with self._store.batch():
            layer = put_manifest(self._store, vt.below_top(change))
            image = put_config(self._store, ImageConfig((layer,), workdir="/"))
        return Packed(image, after, found, looked.began_ns)

    def _may_differ(self, found: Found) -> bool:
        """Whether there is anything but files, folders and links that are known."""
        shown = vt.nodes(self._shown)
        return found.paths != shown.keys() or any(
            not _is_shown(node, shown[path].entry) for path, node in found.fresh.sorted()
        )

    def committed(self, change: Packed) -> None:
        """The owner's node has it."""
        self._shown = change.after
        self._stamps = settled(change.found.stamps, self.top, change.began_ns)

    def show(self, tree: Manifest) -> None:
        """Right after a commit: have the folder show another version. Raises as `volume_write`."""
        self._clear()
        self._stamps |= write(self._store, self._shown, tree, self.top, self._staging, self._owner)
        self._shown = tree

    def _clear(self) -> None:
        shutil.rmtree(self._staging, ignore_errors=True)
        self._staging.mkdir(exist_ok=True)


def _is_shown(node: Node, entry: Entry) -> bool:
    match node, entry:
        case (TreeFolder(), Dir()):
            return True
        case (Link(), Symlink()):
            return node.target == entry.target
    return False


def _refuse_hidden(error: OSError) -> None:
    """A folder that its owner cannot list may hold anything."""
    if isinstance(error, PermissionError):
        raise error


def remove(place: Path) -> None:
    """Remove a folder of which code made what it likes, also what it closed to its owner. Nothing is followed."""
    for parent, folders, _ in os.walk(place):
        for name in folders:
            try:
                descriptor = os.open(os.path.join(parent, name), os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
            except OSError:
                continue  # a link, or gone
            try:
                os.chmod(f"/proc/self/fd/{descriptor}", 0o700)
            finally:
                os.close(descriptor)
    shutil.rmtree(place, ignore_errors=True)


def check_room(top: Path, bytes_max: int) -> str:
    """What is wrong with how much code wrote below `top`, or ""."""
    status = os.statvfs(top)
    if status.f_bavail * status.f_frsize < DISK_FREE_BYTES_MIN:
        return "leaves too little of the machine's disk"
    size = count = 0
    try:
        for _, folders, files, descriptor in os.fwalk(top, onerror=_refuse_hidden, follow_symlinks=False):
            for name in files:
                with suppress(OSError):  # gone meanwhile
                    size += os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_blocks * 512
            count += len(folders) + len(files)
            if size > bytes_max or count > FILES_MAX:
                return f"is more than {bytes_max >> 30} GiB, or {FILES_MAX} files"
    except PermissionError:
        return "has a closed folder, so that its size cannot be seen"
    return ""
