"""What a function left in a folder that it can write to, while it may still be writing: input from a stranger.

Nothing is followed. Each name is opened relative to its open parent, and what is read is a hard link in a folder that
the function cannot reach: a name that it changes meanwhile leads nowhere else. Only regular files, folders and links
that stay in the volume travel; devices, sockets, pipes and set-user-id bits stay behind.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from potluck_images.errors import ImageError
from potluck_images.manifest import Dir, Symlink, check_path, sort_key
from potluck_images.tree import Folder, HostFile, Link, Node, Tree
from potluck_images.volume_tree import check_entry

# Files of one volume: each is a name to look at in every commit. As Modal's for its first volumes.
FILES_MAX = 500_000

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Stamp(NamedTuple):
    """By which it is seen whether a file was written since it was last read."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    mode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        executable = status.st_mode & 0o100
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, executable)


@dataclass
class Found:
    """`fresh` is what is new or was written to; `stamps` are those of all files, `paths` all that is there."""

    fresh: Tree = field(default_factory=Tree)
    stamps: dict[str, Stamp] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    left_behind: list[str] = field(default_factory=list)
    bytes: int = 0
    _count: int = 0

    @property
    def paths(self) -> set[str]:
        """Links are always fresh."""
        return self.stamps.keys() | self.folders | {path for path, node in self.fresh.sorted()}

    def put(self, path: str, node: Node) -> None:
        self._count += 1
        if self._count > FILES_MAX:
            raise ImageError(f"A volume has at most {FILES_MAX} files.", fix="Pack some of them into archives.")
        self.fresh.put(path, node)

    def leave(self, path: str) -> None:
        self.left_behind.append(path)


def scan(folder: Path, known: Mapping[str, Stamp], staging: Path, check: Callable[[], None] = lambda: None) -> Found:
    """Look at all of `folder`. Files without the stamp that is known of them are linked into `staging`, an empty folder
    on the same file system. `check` is called now and then and may raise. Raises `ImageError` beyond a limit."""
    found = Found()
    with _opened(str(folder), None) as descriptor:
        _Scan(found, known, staging, check).read(descriptor, "")
    return found


class _Scan:
    def __init__(self, found: Found, known: Mapping[str, Stamp], staging: Path, check: Callable[[], None]) -> None:
        self._found, self._known, self._staging, self._check = found, known, staging, check
        self._links = 0

    def read(self, folder: int, inside: str) -> None:
        self._check()
        for name in sorted(os.listdir(folder)):
            path = f"{inside}/{name}" if inside else name
            if not _can_travel(path):
                self._found.leave(path)
                continue
            try:
                self._read_entry(folder, name, path)
            except FileNotFoundError:  # gone meanwhile
                continue
            except OSError:  # changed into something else, or closed to us
                self._found.leave(path)

    def _read_entry(self, folder: int, name: str, path: str) -> None:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            with _opened(name, folder) as descriptor:
                self._found.folders.add(path)
                self._found.put(path, Folder())
                self.read(descriptor, path)
        elif stat.S_ISLNK(status.st_mode):
            self._read_link(path, os.readlink(name, dir_fd=folder))
        elif stat.S_ISREG(status.st_mode):
            self._read_file(folder, name, path, status)
        else:
            self._found.leave(path)

    def _read_link(self, path: str, target: str) -> None:
        try:
            target.encode()
            check_entry(Symlink(path, target))
        except (ImageError, UnicodeEncodeError):
            self._found.leave(path)
        else:
            self._found.put(path, Link(target))

    def _read_file(self, folder: int, name: str, path: str, status: os.stat_result) -> None:
        self._found.bytes += status.st_size
        if self._known.get(path) == Stamp.of(status):
            self._found.stamps[path] = Stamp.of(status)
            return
        self._links += 1
        link = self._staging / str(self._links)
        os.link(name, link, src_dir_fd=folder, follow_symlinks=False)
        # A link changes the time of the inode, so the stamp is that of now; what is written after it shows again.
        linked = link.lstat()
        if not stat.S_ISREG(linked.st_mode):
            link.unlink()
            self._found.leave(path)
            return
        if not linked.st_mode & 0o400:
            link.chmod(0o600 | linked.st_mode & 0o100)
            linked = link.lstat()
        self._found.put(path, HostFile(link, linked.st_size, bool(linked.st_mode & 0o100)))
        self._found.stamps[path] = Stamp.of(linked)


# File systems write times in ticks of at most this, nanoseconds: what was written just now may be written again
# without a sign of it.
TICK_NS = 100_000_000


def settled(stamps: Mapping[str, Stamp], folder: Path, began_ns: int) -> dict[str, Stamp]:
    """The stamps to know, once `staging` is empty again, which changes the times of inodes. Not of files that were
    written to since, or just before, the scan began (Unix nanoseconds)."""
    after: dict[str, Stamp] = {}
    for path, stamp in stamps.items():
        status = status_of(folder, path)
        now = Stamp.of(status) if status is not None else None
        if now and now._replace(ctime_ns=stamp.ctime_ns) == stamp and now.mtime_ns < began_ns - TICK_NS:
            after[path] = now
    return after


def status_of(folder: Path, path: str) -> os.stat_result | None:
    """That of a path below `folder`, following nothing; None when there is nothing to be had."""
    try:
        with parent_of(folder, path) as (parent, name):
            return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError:
        return None


@contextmanager
def parent_of(folder: Path, path: str) -> Iterator[tuple[int, str]]:
    """The folder of a path, opened name by name, and the last name. Raises `OSError` where a link is in the way."""
    *parents, name = path.split("/")
    descriptor = os.open(folder, _FOLDER)
    try:
        for parent in parents:
            below = os.open(parent, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor, name
    finally:
        os.close(descriptor)


@contextmanager
def _opened(name: str, parent: int | None) -> Iterator[int]:
    descriptor = os.open(name, _FOLDER, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _can_travel(path: str) -> bool:
    try:
        path.encode()
        check_path(path, sort_key(path))
        check_entry(Dir(path))
    except (ImageError, UnicodeEncodeError):
        return False
    return True
