"""Files by content, to be hard-linked into any number of image roots. Read-only, with one fixed time stamp."""

from __future__ import annotations

import errno
import itertools
import os
import secrets
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from blake3 import blake3

from potluck_images.errors import ImageError
from potluck_images.manifest import File, Manifest
from potluck_images.packfile import clearer
from potluck_images.store import ChunkStore

# 1980-01-01: the first moment that zip files can express, so that tools which repack a root do not stumble.
MTIME_S = 315_532_800

# Hard links can be refused: another file system, too many links to one inode, or a file system without them.
_NO_LINK = (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP)


class FileCache:
    """`folder/ab/<digest>`, with an x at the end for executable files, since mode bits belong to the inode."""

    def __init__(self, folder: Path, store: ChunkStore) -> None:
        self._folder, self._store = folder, store
        # Names of files that are being written: unique among processes, then within this one.
        self._writer, self._numbers = f"{secrets.token_hex(8)}-", itertools.count()
        self._stopped = False
        for number in range(256):
            (folder / f"{number:02x}").mkdir(parents=True, exist_ok=True)

    def path(self, file: File) -> Path:
        return Path(self._path(file))

    def _path(self, file: File) -> str:
        name = file.digest.hex()
        return f"{self._folder}/{name[:2]}/{name}{'x' if file.mode & 0o100 else ''}"

    def fill(self, files: Iterable[tuple[File, Manifest]]) -> None:
        """Write those that are not here yet. Raises what the store raises, `ImageError`, `StoreFullError`."""
        wanted = {self._path(file): (file, layer) for file, layer in files}
        self._stopped = False
        small, large = _jobs([item for path, item in wanted.items() if not os.path.exists(path)])
        with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="materialise") as pool:
            # One thread for all of the small ones: a system call each 10 µs, and threads that hand the interpreter
            # to each other that often are slower than one.
            futures = [pool.submit(self._write_bundles, small), *(pool.submit(self._write_all, job) for job in large)]
            try:
                for future in futures:
                    future.result()
            finally:
                self._stopped = True
                pool.shutdown(cancel_futures=True)

    def link(self, file: File, name: str, folder: int) -> None:
        """Put the file as `name` into the open `folder`; a copy where a hard link is refused."""
        source = self._path(file)
        try:
            os.link(source, name, dst_dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            _copy(Path(source), name, folder)

    def remove_unused(self) -> None:
        """Remove files that no root links to, and what writers left that died; none may be writing now."""
        for path in self._folder.glob("??/.*"):
            path.unlink()
        for path in self._folder.glob("??/*"):
            if path.stat().st_nlink == 1:
                path.unlink()

    def _write_bundles(self, jobs: list[list[tuple[File, Manifest]]]) -> None:
        for items in jobs:
            if self._stopped:
                return
            self._write_all(items)

    def _write_all(self, items: list[tuple[File, Manifest]]) -> None:
        """Files that begin in one chunk; it is read once."""
        first = self._chunk(*items[0], 0) if items[0][0].pieces else b""
        for file, layer in items:
            self._write(file, layer, first)

    def _chunk(self, file: File, layer: Manifest, number: int) -> bytes:
        ref = layer.chunks[file.pieces[number].chunk]
        data = self._store.get(ref.digest)
        if len(data) != ref.size:
            raise ImageError(
                "A layer's manifest is refused.", why=f"It misstates the size of chunk {ref.digest.hex()}."
            )
        return data

    def _write(self, file: File, layer: Manifest, first: bytes) -> None:
        path = self._path(file)
        temporary = f"{os.path.dirname(path)}/.{self._writer}{next(self._numbers)}"
        try:
            out = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                self._write_content(out, file, layer, first)
                os.fchmod(out, 0o555 if file.mode & 0o100 else 0o444)
                os.utime(out, (MTIME_S, MTIME_S))
            finally:
                os.close(out)
            _publish(temporary, path)
        except OSError as error:
            raise clearer(error) from None
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)

    def _write_content(self, out: int, file: File, layer: Manifest, first: bytes) -> None:
        hasher = blake3()
        for number, piece in enumerate(file.pieces):
            data = first if number == 0 else self._chunk(file, layer, number)
            part = memoryview(data)[piece.offset : piece.offset + piece.size]
            hasher.update(part)
            _write_whole(out, part)
        if hasher.digest() != file.digest:
            raise ImageError("A layer's manifest is refused.", why=f"{file.path!r} has another digest than it says.")


def _write_whole(out: int, data: memoryview) -> None:
    while written := os.write(out, data):
        data = data[written:]
        if not data:
            return


def _jobs(items: list[tuple[File, Manifest]]) -> tuple[list[list[tuple[File, Manifest]]], ...]:
    """Bundles, and then large files, the largest first so that none is left to a single thread at the end."""
    jobs = _by_first_chunk(items)
    large = [job for job in jobs if len(job[0][0].pieces) > 1]
    return [job for job in jobs if len(job[0][0].pieces) <= 1], sorted(large, key=lambda job: -job[0][0].size)


def _by_first_chunk(items: list[tuple[File, Manifest]]) -> list[list[tuple[File, Manifest]]]:
    """Files of one bundle together, so that it is unpacked once; each large file by itself."""
    jobs: dict[bytes, list[tuple[File, Manifest]]] = {}
    for file, layer in items:
        first = layer.chunks[file.pieces[0].chunk].digest if file.pieces else b""
        jobs.setdefault(first, []).append((file, layer))
    return list(jobs.values())


def _publish(temporary: str, path: str) -> None:
    """Give the file its name unless another thread was faster. It is never replaced: Linux refuses to link to a file
    whose last name is being replaced at that moment."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        os.rename(temporary, path)


def _copy(source: Path, name: str, folder: int) -> None:
    """A copy that shares blocks where the file system can."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    mode = source.stat().st_mode & 0o777
    with open(source, "rb") as reader, open(os.open(name, flags, mode, dir_fd=folder), "wb") as writer:
        try:
            while os.copy_file_range(reader.fileno(), writer.fileno(), 1 << 30):
                pass
        except OSError:
            reader.seek(0)
            writer.truncate(0)
            shutil.copyfileobj(reader, writer)
        os.fchmod(writer.fileno(), mode)
        writer.flush()
        os.utime(writer.fileno(), (MTIME_S, MTIME_S))
