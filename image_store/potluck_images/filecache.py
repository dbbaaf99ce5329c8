"""Files by content, to be hard-linked into any number of image roots. Read-only, with one fixed time stamp."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
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
        for number in range(256):
            (folder / f"{number:02x}").mkdir(parents=True, exist_ok=True)

    def path(self, file: File) -> Path:
        name = file.digest.hex() + ("x" if file.mode & 0o100 else "")
        return self._folder / name[:2] / name

    def fill(self, files: Iterable[tuple[File, Manifest]]) -> None:
        """Write those that are not here yet. Raises what the store raises, `ImageError`, `StoreFullError`."""
        missing = {self.path(file): (file, layer) for file, layer in files}
        jobs = _by_first_chunk([item for path, item in missing.items() if not path.exists()])
        with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="materialise") as pool:
            futures = [pool.submit(self._write_all, job) for job in jobs]
            try:
                for future in futures:
                    future.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def link(self, file: File, name: str, folder: int) -> None:
        """Put the file as `name` into the open `folder`; a copy where a hard link is refused."""
        source = self.path(file)
        try:
            os.link(source, name, dst_dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            _copy(source, name, folder)

    def remove_unused(self) -> None:
        """Remove files that no root links to, and what writers left that died; none may be writing now."""
        for path in self._folder.glob("??/.*"):
            path.unlink()
        for path in self._folder.glob("??/*"):
            if path.stat().st_nlink == 1:
                path.unlink()

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
        path = self.path(file)
        temporary = path.with_name(f".{secrets.token_hex(8)}")
        try:
            with open(temporary, "xb") as out:
                hasher = blake3()
                for number, piece in enumerate(file.pieces):
                    data = first if number == 0 else self._chunk(file, layer, number)
                    part = memoryview(data)[piece.offset : piece.offset + piece.size]
                    hasher.update(part)
                    out.write(part)
                os.fchmod(out.fileno(), 0o555 if file.mode & 0o100 else 0o444)
            if hasher.digest() != file.digest:
                raise ImageError(
                    "A layer's manifest is refused.", why=f"{file.path!r} has another digest than it says."
                )
            os.utime(temporary, (MTIME_S, MTIME_S))
            _publish(temporary, path)
        except OSError as error:
            raise clearer(error) from None
        finally:
            temporary.unlink(missing_ok=True)


def _by_first_chunk(items: list[tuple[File, Manifest]]) -> list[list[tuple[File, Manifest]]]:
    """Files of one bundle together, so that it is unpacked once; each large file by itself."""
    jobs: dict[bytes, list[tuple[File, Manifest]]] = {}
    for file, layer in items:
        first = layer.chunks[file.pieces[0].chunk].digest if file.pieces else b""
        jobs.setdefault(first, []).append((file, layer))
    return list(jobs.values())


def _publish(temporary: Path, path: Path) -> None:
    """Give the file its name unless another thread was faster. It is never replaced: Linux refuses to link to a file
    whose last name is being replaced at that moment."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        temporary.rename(path)


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
