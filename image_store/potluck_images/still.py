"""A copy of the upper folder of an overlay that programs still write to, so that it can be read as a layer.

What lies there is a stranger's, who may change it while it is read: each name is opened relative to its folder, and no
link is followed. The copy has what `changes` looks at: files, links, whiteouts, opaque folders.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO

from potluck_images.errors import ImageBuildError

# Folders in each other: each is an open descriptor while it is read.
DEPTH_MAX = 100
# Of a file, in memory at once.
PIECE_BYTES = 1 << 20
_OPAQUE = "user.overlay.opaque"
# What opening says when something else, or nothing, is there by now.
_CHANGED = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO)

Told = Callable[[str], None]


def copy_still(source: Path, target: Path, bytes_max: int, files_max: int, told: Told = lambda text: None) -> None:
    """Copy to `target`, a new folder. `told` receives a line for each thing that stays behind.

    Raises `ImageBuildError` beyond a limit, `OSError`.
    """
    copier = _Copier(bytes_max, files_max, told)
    target.mkdir()
    folder = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        copier.folder(folder, target, "", 0)
    finally:
        os.close(folder)


class _Copier:
    def __init__(self, bytes_max: int, files_max: int, told: Told) -> None:
        self._bytes_max, self._files_max, self._told = bytes_max, files_max, told
        self._bytes = self._files = 0

    def folder(self, folder: int, target: Path, inside: str, depth: int) -> None:
        for name in sorted(os.listdir(folder)):
            self._files += 1
            path = f"{inside}/{name}"
            if self._files > self._files_max or depth > DEPTH_MAX:
                raise _too_large(f"more than {self._files_max} files, or {DEPTH_MAX} folders in each other")
            try:
                self._entry(folder, name, target / name, path, depth)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EPERM):
                    self._told(f"{path} cannot be read and stays behind")
                elif error.errno not in _CHANGED:
                    raise

    def _entry(self, folder: int, name: str, target: Path, path: str, depth: int) -> None:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            self._sub_folder(folder, name, target, path, depth)
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=folder), target)
        elif stat.S_ISREG(status.st_mode):
            self._file(folder, name, target)
        elif stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            os.mknod(target, stat.S_IFCHR, 0)
        else:
            self._told(f"{path} is a device, socket or pipe and stays behind")

    def _sub_folder(self, folder: int, name: str, target: Path, path: str, depth: int) -> None:
        opened = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            target.mkdir()
            if _is_opaque(opened):
                os.setxattr(target, _OPAQUE, b"y")
            self.folder(opened, target, path, depth + 1)
        finally:
            os.close(opened)

    def _file(self, folder: int, name: str, target: Path) -> None:
        # Not blocked by a pipe that took the file's place.
        opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        with os.fdopen(opened, "rb") as source:
            status = os.fstat(opened)
            if not stat.S_ISREG(status.st_mode):
                return
            self._bytes += status.st_size
            if self._bytes > self._bytes_max:
                raise _too_large(f"more than {self._bytes_max >> 20} MiB")
            _copy(source, target, status.st_size)
            target.chmod(0o600 | status.st_mode & 0o777)


def _copy(source: IO[bytes], target: Path, left: int) -> None:
    """No more than it had: a file may grow while it is read."""
    with target.open("xb") as copy:
        while data := source.read(min(left, PIECE_BYTES)):
            copy.write(data)
            left -= len(data)


def _is_opaque(folder: int) -> bool:
    try:
        return os.getxattr(folder, _OPAQUE) == b"y"
    except OSError:
        return False


def _too_large(why: str) -> ImageBuildError:
    return ImageBuildError("A snapshot would be too large.", why=why, fix="Remove what is not needed first.")
