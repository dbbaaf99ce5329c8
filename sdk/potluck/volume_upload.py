"""Files on their way into a volume: `Volume.batch_upload()`."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from potluck.asking import Steps, drive, drive_async
from potluck.errors import InvalidError

if TYPE_CHECKING:
    from typing import Self


class VolumeUpload:
    """Gathers files; they are read and sent when the block ends without an exception."""

    def __init__(self, volume: Callable[[], Steps[str]], force: bool) -> None:
        self._volume, self._force = volume, force
        self._files: list[tuple[Path | BinaryIO, str, bool]] = []

    def put_file(
        self, local_file: Path | str | BinaryIO, remote_path: PurePosixPath | str, mode: int | None = None
    ) -> None:
        """One file, by its path here or open for reading. A `remote_path` that ends in "/" is a folder, in which it
        keeps its name. Of `mode` counts whether the owner may execute it. Raises `InvalidError`."""
        remote = str(remote_path)
        if not isinstance(local_file, str | Path):
            self._files.append((local_file, remote, bool((mode or 0) & 0o100)))
            return
        path = Path(local_file).expanduser()
        if not path.is_file():
            raise InvalidError(f"{path} is no file.", fix="Give a file, or use put_directory().")
        remote += path.name if remote.endswith("/") else ""
        executable = bool((path.stat().st_mode if mode is None else mode) & 0o100)
        self._files.append((path, remote, executable))

    def put_directory(self, local_path: Path | str, remote_path: PurePosixPath | str, recursive: bool = True) -> None:
        """All files of a folder, links to files as files. Raises `InvalidError`."""
        top = Path(local_path).expanduser()
        if not top.is_dir():
            raise InvalidError(f"{top} is no folder.", fix="Give a folder, or use put_file().")
        for folder, folders, names in os.walk(top):
            folders.sort()
            inside = Path(folder).relative_to(top).as_posix()
            for name in sorted(names):
                remote = PurePosixPath(str(remote_path), inside, name)
                self.put_file(Path(folder, name), remote)
            if not recursive:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._files:
            drive(self._send())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        if kind is None and self._files:
            await drive_async(self._send())

    def _send(self) -> Steps[None]:
        from potluck.wire.volumes import ChangeVolume, PutFile

        volume, upload = (yield from self._volume()), secrets.token_hex(16)
        puts = []
        for number, (source, remote, executable) in enumerate(self._files):
            if isinstance(source, Path):
                with source.open("rb") as file:
                    yield from _stage(upload, number, file)
            else:
                yield from _stage(upload, number, source)
            puts.append(PutFile(remote, number, executable, self._force))
        yield ChangeVolume(volume, tuple(puts), upload)


def _stage(upload: str, number: int, file: BinaryIO) -> Steps[None]:
    from potluck.wire.volumes import BLOCK_BYTES, StageData

    while data := file.read(BLOCK_BYTES):
        yield StageData(upload, number, data)
