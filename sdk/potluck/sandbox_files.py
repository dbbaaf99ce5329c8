"""`Sandbox.filesystem`: files of a sandbox. Names and meaning are Modal's; paths are absolute ones there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from potluck.absent import Absent
from potluck.asking import Both, Steps
from potluck.errors import InvalidError, SandboxFilesystemFileTooLargeError
from potluck.sandbox_process import errand

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from potluck.wire.sandbox import Entry, Folder, Piece

PathLike = str | os.PathLike[str]


class FileInfo(NamedTuple):
    """A file, folder or link. `type` is file, directory, symlink or other; `mode` its permission bits, `permissions`
    the same as `ls` writes them; `modified_time` in seconds since 1970."""

    name: str
    path: str
    type: str
    size: int
    mode: int
    permissions: str
    owner: str
    group: str
    modified_time: float
    symlink_target: str | None

    def is_file(self) -> bool:
        return self.type == "file"

    def is_dir(self) -> bool:
        return self.type == "directory"

    def is_symlink(self) -> bool:
        return self.type == "symlink"


class SandboxFilesystem(Absent):
    """All methods have `.aio` twins, and raise `SandboxFilesystemError`, or one of its kinds."""

    def __init__(self, call: str) -> None:
        self._call = call
        self.list_files, self.stat = Both(self._list_files), Both(self._stat)
        self.make_directory, self.remove = Both(self._make_directory), Both(self._remove)
        self.read_bytes, self.read_text = Both(self._read_bytes), Both(self._read_text)
        self.write_bytes, self.write_text = Both(self._write_bytes), Both(self._write_text)
        self.copy_from_local, self.copy_to_local = Both(self._copy_from_local), Both(self._copy_to_local)

    def _list_files(self, remote_path: str) -> Steps[list[FileInfo]]:
        """What is in a folder, by name; not what is in its folders."""
        from potluck.wire.sandbox import Folder, ListFolder

        path, more = _absolute(remote_path), True
        found: list[FileInfo] = []
        while more:
            after = found[-1].name if found else ""
            folder: Folder = yield from errand(self._call, ListFolder(path, after), Folder)
            found += [_info(entry) for entry in folder.entries]
            more = folder.more
        return found

    def _stat(self, remote_path: str) -> Steps[FileInfo]:
        """What is known of one file, folder or link."""
        from potluck.wire.sandbox import Entry, Stat

        return _info((yield from errand(self._call, Stat(_absolute(remote_path)), Entry)))

    def _make_directory(self, remote_path: str, *, create_parents: bool = True) -> Steps[None]:
        """With those above it, and none if there is one; unless `create_parents` is False."""
        from potluck.wire.sandbox import Done, MakeFolder

        yield from errand(self._call, MakeFolder(_absolute(remote_path), create_parents), Done)

    def _remove(self, remote_path: str, *, recursive: bool = False) -> Steps[None]:
        """A file, a link, an empty folder, or with `recursive` any."""
        from potluck.wire.sandbox import Done, Remove

        yield from errand(self._call, Remove(_absolute(remote_path), recursive), Done)

    def _read_bytes(self, remote_path: str) -> Steps[bytes]:
        """All of a file, 1 GiB at most."""
        from potluck.wire.sandbox import READ_BYTES_MAX

        pieces, size = [], 0
        while True:
            piece = yield from self._piece(remote_path, size)
            pieces.append(piece.data)
            size += len(piece.data)
            if piece.end:
                return b"".join(pieces)
            if size > READ_BYTES_MAX:
                raise SandboxFilesystemFileTooLargeError(
                    f"{remote_path} is too large to be read at once.", fix="Use copy_to_local()."
                )

    def _piece(self, remote_path: str, offset: int) -> Steps[Piece]:
        from potluck.wire.sandbox import Piece, ReadFile

        piece: Piece = yield from errand(self._call, ReadFile(_absolute(remote_path), offset), Piece)
        return piece

    def _read_text(self, remote_path: str) -> Steps[str]:
        """As `read_bytes`; UTF-8."""
        return (yield from self._read_bytes(remote_path)).decode()

    def _write_bytes(self, data: bytes | bytearray | memoryview, remote_path: str) -> Steps[None]:
        """In place of what was there; folders above it are made."""
        from potluck.wire.sandbox import PIECE_BYTES_MAX

        view = memoryview(data).cast("B")
        for start in range(0, max(1, len(view)), PIECE_BYTES_MAX):
            yield from self._write(remote_path, start, bytes(view[start : start + PIECE_BYTES_MAX]))

    def _write(self, remote_path: str, offset: int, data: bytes) -> Steps[None]:
        from potluck.wire.sandbox import Done, WriteFile

        yield from errand(self._call, WriteFile(_absolute(remote_path), offset, data), Done)

    def _write_text(self, data: str, remote_path: str) -> Steps[None]:
        """As `write_bytes`; UTF-8."""
        yield from self._write_bytes(data.encode(), remote_path)

    def _copy_from_local(self, local_path: PathLike, remote_path: str) -> Steps[None]:
        """A file of this machine into the sandbox. Raises `OSError` for one that cannot be read."""
        with Path(local_path).open("rb") as file:
            offset = 0
            for data in _pieces(file):
                yield from self._write(remote_path, offset, data)
                offset += len(data)

    def _copy_to_local(self, remote_path: str, local_path: PathLike) -> Steps[None]:
        """A file of the sandbox onto this machine, in place of what is there once all of it has come. Folders above it
        are made."""
        target = Path(local_path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        try:
            with part.open("wb") as file:
                piece = yield from self._piece(remote_path, 0)
                file.write(piece.data)
                while not piece.end:
                    piece = yield from self._piece(remote_path, file.tell())
                    file.write(piece.data)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    """An empty file is one empty piece."""
    from potluck.wire.sandbox import PIECE_BYTES_MAX

    data = file.read(PIECE_BYTES_MAX)
    yield data
    while data := file.read(PIECE_BYTES_MAX):
        yield data


def _absolute(path: str) -> str:
    if not str(path).startswith("/"):
        raise InvalidError(f"{path!r} is not an absolute path of the sandbox.", fix="Begin it with /.")
    return str(path)


def _info(entry: Entry) -> FileInfo:
    import stat

    bits = {"directory": stat.S_IFDIR, "symlink": stat.S_IFLNK, "file": stat.S_IFREG}.get(entry.kind, 0)
    return FileInfo(
        entry.name, entry.path, entry.kind, entry.size, entry.mode, stat.filemode(bits | entry.mode)[1:], entry.owner,
        entry.group, entry.modified_us / 1e6, entry.target,
    )  # fmt: skip
