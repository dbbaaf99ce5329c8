"""Files of a sandbox, as its owner's program reads and writes them."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from potluck import errors
from potluck.wire import sandbox as messages

# Of the error number, the error that the program gets.
_ERRORS: dict[int, type[errors.Error]] = {
    errno.ENOENT: errors.SandboxFilesystemNotFoundError,
    errno.EISDIR: errors.SandboxFilesystemIsADirectoryError,
    errno.ENOTDIR: errors.SandboxFilesystemNotADirectoryError,
    errno.ENOTEMPTY: errors.SandboxFilesystemDirectoryNotEmptyError,
    errno.EEXIST: errors.SandboxFilesystemPathAlreadyExistsError,
    errno.EACCES: errors.SandboxFilesystemPermissionError,
    errno.EPERM: errors.SandboxFilesystemPermissionError,
    errno.EROFS: errors.SandboxFilesystemPermissionError,
}
FileRequest = (
    messages.ListFolder | messages.Stat | messages.MakeFolder | messages.Remove | messages.ReadFile | messages.WriteFile
)


def answer(request: FileRequest) -> messages.Answer:
    """Raises `SandboxFilesystemError`."""
    path = Path(request.path)
    try:
        match request:
            case messages.ListFolder(after=after):
                return _list(path, after)
            case messages.Stat():
                return entry(path)
            case messages.MakeFolder(parents=parents):
                path.mkdir(parents=parents, exist_ok=parents)
            case messages.Remove(recursive=recursive):
                _remove(path, recursive)
            case messages.ReadFile(offset=offset):
                return _read(path, offset)
            case messages.WriteFile(offset=offset, data=data):
                _write(path, offset, data)
    except OSError as error:
        kind = _ERRORS.get(error.errno or 0, errors.SandboxFilesystemError)
        raise kind(f"{request.path}: {error.strerror}.") from None
    return messages.Done()


def _list(path: Path, after: str) -> messages.Folder:
    names = sorted(name for name in os.listdir(path) if name > after)
    shown = names[: messages.ENTRIES_MAX]
    entries = []
    for name in shown:
        with suppress(FileNotFoundError):  # gone meanwhile
            entries.append(entry(path / name))
    return messages.Folder(tuple(entries), len(names) > len(shown))


def entry(path: Path) -> messages.Entry:
    """What is known of one, links not followed. Raises `OSError`."""
    facts = path.lstat()
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}
    kind = kinds.get(stat.S_IFMT(facts.st_mode), "other")
    target = os.readlink(path) if kind == "symlink" else None
    owner, group = _name(facts.st_uid, facts.st_gid)
    modified_us = facts.st_mtime_ns // 1000
    mode = stat.S_IMODE(facts.st_mode)
    return messages.Entry(path.name, str(path), kind, facts.st_size, mode, owner, group, modified_us, target)


def _name(user: int, group: int) -> tuple[str, str]:
    try:
        owner = pwd.getpwuid(user).pw_name
    except KeyError:
        owner = str(user)
    try:
        return owner, grp.getgrgid(group).gr_name
    except KeyError:
        return owner, str(group)


def _remove(path: Path, recursive: bool) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path) if recursive else path.rmdir()
    else:
        path.unlink()


def _read(path: Path, offset: int) -> messages.Piece:
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(messages.PIECE_BYTES_MAX)
        return messages.Piece(data, len(data) < messages.PIECE_BYTES_MAX)


def _write(path: Path, offset: int, data: bytes) -> None:
    if not offset:
        path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("r+b" if offset else "wb") as file:
        file.seek(offset)
        file.write(data)
