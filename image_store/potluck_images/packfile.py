"""Pack files: records of chunks, appended by one process at a time.

A record is a header (magic, digest, frame size) and the zstd frame. One writer per pack, held by `flock`, which the
kernel releases when the process dies.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from potluck_images.chunk import FRAME_BYTES_MAX, Chunk, check_frame
from potluck_images.errors import CorruptDataError, StoreFullError

HEADER = struct.Struct(">4s32sI")
MAGIC = b"PLK1"

# A new pack is begun beyond this size: few files, and yet a pack can be copied or compacted in a moment.
PACK_BYTES_MAX = 512 << 20

# What a full disk, a quota and a file-size limit look like.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Record(NamedTuple):
    """Where a chunk's record begins in its pack, and the size of its frame."""

    digest: bytes
    offset: int
    frame_size: int

    @property
    def end(self) -> int:
        return self.offset + HEADER.size + self.frame_size


class PackFile:
    """An open, locked pack. `end` is where the next record goes."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self.end = os.fstat(descriptor).st_size

    @classmethod
    def create(cls, folder: Path) -> PackFile:
        """A new pack under a random name. Raises `StoreFullError`."""
        while True:
            path = folder / f"{secrets.token_hex(8)}.pack"
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise clearer(error) from None
            if pack := cls._lock(path, descriptor):
                sync_folder(folder)
                return pack

    @classmethod
    def try_open(cls, path: Path) -> PackFile | None:
        """Open a pack for writing, or None while another process writes to it or has removed it."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        return cls._lock(path, descriptor)

    @classmethod
    def _lock(cls, path: Path, descriptor: int) -> PackFile | None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if not os.fstat(descriptor).st_nlink:  # removed between opening and locking it
            os.close(descriptor)
            return None
        return cls(path, descriptor)

    def append(self, chunk: Chunk) -> Record:
        """Write one record. After `StoreFullError` the pack is as before."""
        record = Record(chunk.digest, self.end, len(chunk.frame))
        data = HEADER.pack(MAGIC, chunk.digest, len(chunk.frame)) + chunk.frame
        try:
            self._write(data)
        except OSError as error:
            os.ftruncate(self._descriptor, self.end)
            raise clearer(error) from None
        self.end = record.end
        return record

    def _write(self, data: bytes) -> None:
        written = 0
        while written < len(data):
            written += os.pwrite(self._descriptor, memoryview(data)[written:], self.end + written)

    def sync(self) -> None:
        """Make all records durable. Raises `StoreFullError`."""
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise clearer(error) from None

    def cut(self, end: int) -> None:
        """Forget everything from `end` on."""
        os.ftruncate(self._descriptor, end)
        self.end = end

    def scan(self, start: int) -> Iterator[Record]:
        """The whole and valid records from `start` on. Afterwards `end` is where the torn tail begins."""
        size, self.end = self.end, start
        while header := _read_header(self._descriptor, self.end, size):
            record = Record(header[0], self.end, header[1])
            frame = os.pread(self._descriptor, record.frame_size, record.offset + HEADER.size)
            self.end = record.end
            if _is_valid(frame, record.digest):
                yield record

    def read(self, record: Record) -> Chunk | None:
        """The record's chunk, verified; None when it went bad."""
        data = os.pread(self._descriptor, HEADER.size + record.frame_size, record.offset)
        try:
            chunk = check_frame(data[HEADER.size :])
        except CorruptDataError:
            return None
        return chunk if chunk.digest == record.digest else None

    def remove(self) -> None:
        """Delete the file; nobody can open it for writing meanwhile, since the lock is held until `close`."""
        self.path.unlink()
        sync_folder(self.path.parent)

    def close(self) -> None:
        os.close(self._descriptor)


def _read_header(descriptor: int, offset: int, size: int) -> tuple[bytes, int] | None:
    header = os.pread(descriptor, HEADER.size, offset)
    if len(header) < HEADER.size:
        return None
    magic, digest, frame_size = HEADER.unpack(header)
    whole = frame_size <= FRAME_BYTES_MAX and offset + HEADER.size + frame_size <= size
    return (digest, frame_size) if magic == MAGIC and whole else None


def _is_valid(frame: bytes, digest: bytes) -> bool:
    try:
        return check_frame(frame).digest == digest
    except CorruptDataError:
        return False


def read_frame(path: Path, record: Record) -> bytes | None:
    """The frame as it lies on disk, unverified; None when the pack or the record's header is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        data = os.pread(descriptor, HEADER.size + record.frame_size, record.offset)
    finally:
        os.close(descriptor)
    return data[HEADER.size :] if data.startswith(MAGIC + record.digest) else None


def sync_folder(folder: Path) -> None:
    """Make names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clearer(error: OSError) -> OSError | StoreFullError:
    """A full disk as `StoreFullError`, all else as it is."""
    return store_full(error) if error.errno in _FULL else error


def store_full(error: Exception) -> StoreFullError:
    return StoreFullError(
        "The image store cannot grow: the disk, a quota or a file-size limit is full.",
        why=str(error),
        fix="Free some space, raise the limit, or move the data folder. What was stored before is whole.",
    )
