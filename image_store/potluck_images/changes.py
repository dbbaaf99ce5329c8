"""What a build step changed, read from the upper folder of an overlay, as a layer.

overlayfs(5), as an unprivileged user mounts it: a removed path is a character device 0/0, a folder that replaces
another has the attribute `user.overlay.opaque`. Owners, set-user-id bits and times are not part of a layer; devices,
sockets and pipes cannot be, and stay behind.
"""

from __future__ import annotations

import filecmp
import os
import posixpath
import stat
from collections.abc import Callable
from pathlib import Path

from potluck_images.errors import ImageError
from potluck_images.manifest import check_target
from potluck_images.tree import Folder, Link, Tree

# Folders that the sandbox mounts over, and the file that says how to reach the network from this machine.
_MOUNTED = {"proc", "dev", "sys", "run", "tmp", "etc/resolv.conf"}

# Notes of package managers: when they ran, and what they made faster by it. Never the same twice.
_NOTES = (
    "var/cache/apt/",
    "var/cache/ldconfig/",
    "var/lib/apt/lists/",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/triggers/Lock",
    "var/lib/systemd/deb-systemd-helper-",
    "var/log/alternatives.log",
    "var/log/apt/",
    "var/log/bootstrap.log",
    "var/log/btmp",
    "var/log/dpkg.log",
    "var/log/faillog",
    "var/log/fontconfig.log",
    "var/log/lastlog",
    "var/log/wtmp",
)
# Copies of a file as it was before the last change.
_BACKUPS = ("etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-")
_BACKUP_FOLDERS = {"var/lib/dpkg", "var/cache/debconf"}

Told = Callable[[str], None]
Skip = Callable[[str], bool]


def changed_tree(upper: Path, below: Path, told: Told = lambda text: None, skip: Skip = lambda path: False) -> Tree:
    """The layer, without paths that `skip` names. `below` is the root that the step started from: what the step wrote
    again as it was is left out.

    `told` receives a line for each thing that cannot travel. Raises `ImageBuildError`, `ImageError`.
    """
    reader = _Reader(told, skip)
    reader.read(upper, below.resolve(), "")
    return reader.tree


class _Reader:
    """`below` is the folder that a changed folder merges with, or None when nothing of it shows."""

    def __init__(self, told: Told, skip: Skip) -> None:
        self.tree, self._told, self._skip = Tree(), told, skip

    def read(self, folder: Path, below: Path | None, inside: str) -> None:
        # What a step made unreadable for its owner, who we are, is made readable.
        os.chmod(folder, 0o755)
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            path = f"{inside}/{entry.name}".removeprefix("/")
            if not _is_note(path) and not self._skip(path):
                old = below / entry.name if below and os.path.lexists(below / entry.name) else None
                self._read_entry(entry, old, path)

    def _read_entry(self, entry: os.DirEntry[str], old: Path | None, path: str) -> None:
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            self._read_folder(entry, old, path)
        elif stat.S_ISLNK(status.st_mode):
            self._read_link(entry, old, path)
        elif stat.S_ISREG(status.st_mode):
            self._read_file(Path(entry.path), old, path, status)
        elif stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            self.tree.remove(path)
        else:
            self._told(f"/{path} is a device, socket or pipe and stays behind")

    def _read_folder(self, entry: os.DirEntry[str], old: Path | None, path: str) -> None:
        if _is_opaque(entry.path):
            self.tree.remove(path)
            old = None
        elif old is not None and (old.is_symlink() or not old.is_dir()):
            old = None
        if old is None:
            self.tree.put(path, Folder())
        self.read(Path(entry.path), old, path)

    def _read_link(self, entry: os.DirEntry[str], old: Path | None, path: str) -> None:
        target = _inside(path, os.readlink(entry.path))
        if old is not None and old.is_symlink() and os.readlink(old) == target:
            return
        try:
            self.tree.put(path, Link(target))
        except ImageError:
            self._told(f"/{path} is a link that cannot travel and stays behind")

    def _read_file(self, source: Path, old: Path | None, path: str, status: os.stat_result) -> None:
        if not status.st_mode & 0o400:
            source.chmod(0o600 | status.st_mode & 0o100)
        if status.st_mode & 0o6000:
            self._told(f"/{path} loses its set-user-id bit")
        if old is None or not _is_same(source, status, old):
            self.tree.put_file(path, source)


def _is_note(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    is_backup = path in _BACKUPS or (folder in _BACKUP_FOLDERS and name.endswith("-old"))
    return path in _MOUNTED or is_backup or path.startswith(_NOTES)


def _is_opaque(folder: str) -> bool:
    for name in ("user.overlay.opaque", "trusted.overlay.opaque"):
        try:
            if os.getxattr(folder, name) == b"y":
                return True
        except OSError:
            continue
    return False


def _is_same(source: Path, status: os.stat_result, old: Path) -> bool:
    if old.is_symlink() or not old.is_file():
        return False
    before = old.stat()
    if before.st_size != status.st_size or (before.st_mode ^ status.st_mode) & 0o100:
        return False
    return filecmp.cmp(source, old, shallow=False)


def _inside(path: str, target: str) -> str:
    """The target with ".." only at its start; as a link may have it that a program made in a root of its own."""
    try:
        check_target(path, target)
    except ImageError:
        return posixpath.normpath(posixpath.join("/", posixpath.dirname(path), target))
    return target
