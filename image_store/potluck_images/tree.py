"""Trees to be packed: what goes where in a layer, before any byte is read."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from potluck_images.errors import ImageBuildError
from potluck_images.manifest import ENTRIES_MAX, check_path, check_target, sort_key


@dataclass(frozen=True, slots=True)
class Folder:
    pass


@dataclass(frozen=True, slots=True)
class HostFile:
    """A regular file on this machine; `size` in bytes as it was seen."""

    source: Path
    size: int
    executable: bool


@dataclass(frozen=True, slots=True)
class Text:
    """A small file made here."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Link:
    target: str


Node = Folder | HostFile | Text | Link
Skip = Callable[[os.DirEntry[str]], bool]


class Tree:
    """Nodes by path, relative to the image's root. Parents come into being by themselves."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._removed: set[str] = set()

    def put(self, path: str, node: Node) -> None:
        """Add or replace. Raises `ImageError` when it leaves the root, `ImageBuildError` for a clash."""
        check_path(path, sort_key(path))
        if isinstance(node, Link):
            check_target(path, node.target)
        if not isinstance(node, Folder) and isinstance(self._nodes.get(path), Folder):
            raise _clash(path)
        self._nodes[path] = node
        if len(self._nodes) > ENTRIES_MAX:
            raise ImageBuildError(f"A layer would have more than {ENTRIES_MAX} entries.", fix="Leave something out.")
        self._put_parents(path)

    def _put_parents(self, path: str) -> None:
        while "/" in path:
            path = path.rpartition("/")[0]
            there = self._nodes.get(path)
            if isinstance(there, Folder):  # then its own parents are there, too
                return
            if there is not None:
                raise _clash(path)
            self._nodes[path] = Folder()

    def remove(self, path: str) -> None:
        """Hide what layers below have there; nodes of this tree stay. Raises `ImageError` when it leaves the root."""
        check_path(path, sort_key(path))
        self._removed.add(path)

    def removed(self) -> list[str]:
        """In the order of a manifest, without what is below another one or replaced by a file or link of this tree."""
        kept: list[str] = []
        for path in sorted(self._removed, key=sort_key):
            covered = bool(kept) and f"{path}/".startswith(f"{kept[-1]}/")
            if not covered and not self._is_replaced(path):
                kept.append(path)
        return kept

    def _is_replaced(self, path: str) -> bool:
        parts = path.split("/")
        nodes = (self._nodes.get("/".join(parts[:depth])) for depth in range(1, len(parts) + 1))
        return any(node is not None and not isinstance(node, Folder) for node in nodes)

    def put_file(self, path: str, source: Path) -> None:
        """Add one regular file of this machine, following links. Raises `ImageBuildError` when it cannot be read."""
        try:
            status = source.stat()
        except OSError as error:
            raise _unreadable(source, error) from None
        if not stat.S_ISREG(status.st_mode):
            raise _not_a_file(source)
        self.put(path, HostFile(source, status.st_size, bool(status.st_mode & 0o100)))

    def put_folder(self, path: str, source: Path, skip: Skip = lambda entry: False, follow: bool = False) -> None:
        """Add all that lies in `source` below `path` ("" for the root), but for what `skip` says.

        Links are kept as links; with `follow`, links to files become files and links to folders are left out.
        """
        try:
            entries = sorted(os.scandir(source), key=lambda entry: entry.name)
        except OSError as error:
            raise _unreadable(source, error) from None
        if path:
            self.put(path, Folder())
        for entry in entries:
            if not skip(entry):
                self._put_entry(f"{path}/{_name(entry)}".removeprefix("/"), entry, skip, follow)

    def _put_entry(self, path: str, entry: os.DirEntry[str], skip: Skip, follow: bool) -> None:
        if entry.is_symlink() and not follow:
            self.put(path, Link(os.readlink(entry.path)))
        elif entry.is_dir(follow_symlinks=False):
            self.put_folder(path, Path(entry.path), skip, follow)
        elif entry.is_file():
            self.put_file(path, Path(entry.path))
        elif not entry.is_symlink():
            raise _not_a_file(Path(entry.path))

    def sorted(self) -> list[tuple[str, Node]]:
        """All nodes in the order of a manifest."""
        return sorted(self._nodes.items(), key=lambda item: sort_key(item[0]))


def _name(entry: os.DirEntry[str]) -> str:
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        raise ImageBuildError(
            f"The name of {entry.path!r} is not UTF-8.", fix="Rename it, or leave its folder out of the image."
        ) from None
    return entry.name


def _clash(path: str) -> ImageBuildError:
    return ImageBuildError(f"/{path} would be both a folder and a file in the image.", fix="Give one another path.")


def _unreadable(source: Path, error: OSError) -> ImageBuildError:
    return ImageBuildError(
        f"{source} cannot be read for the image.", why=str(error), fix="Make it readable or leave it out."
    )


def _not_a_file(source: Path) -> ImageBuildError:
    return ImageBuildError(
        f"{source} is no regular file, folder or link.",
        why="Sockets, pipes and devices cannot travel in an image.",
        fix="Leave it out.",
    )
