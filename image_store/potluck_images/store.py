"""The interface of a chunk store. Implementations: `memory.MemoryStore` and `disk.DiskStore`; both pass
`tests/conformance/check_store.py`. All methods may be called from several threads.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Protocol

from potluck_images.chunk import Chunk, check_frame, pack
from potluck_images.errors import CorruptDataError, NotFoundError


class ChunkStore(Protocol):
    """Holds chunks by digest (32 bytes)."""

    def put(self, frame: bytes) -> bytes:
        """Verify and keep a frame from anywhere; returns its digest. Raises `CorruptDataError`, `StoreFullError`."""
        ...

    def put_chunk(self, chunk: Chunk) -> None:
        """Keep a chunk that is verified already. Raises `StoreFullError`."""
        ...

    def add(self, data: bytes | memoryview) -> bytes:
        """Compress and keep raw bytes; returns their digest. Raises `StoreFullError`."""
        ...

    def get(self, digest: bytes) -> bytes:
        """The raw bytes, verified. Raises `NotFoundError`; on bytes that went bad, forgets them and raises
        `CorruptDataError`, so that they can be fetched or built again."""
        ...

    def get_frame(self, digest: bytes) -> bytes:
        """The zstd frame, to be sent; verified, and raises, as `get`."""
        ...

    def has(self, digest: bytes) -> bool: ...

    def missing(self, digests: Iterable[bytes]) -> list[bytes]:
        """Those that the store lacks, each once, in the order given."""
        ...

    def pin(self, digests: Iterable[bytes]) -> None:
        """Protect these from `discard` until `unpin`, counted. Pins end with this object."""
        ...

    def unpin(self, digests: Iterable[bytes]) -> None: ...

    def discard(self, digests: Iterable[bytes]) -> list[bytes]:
        """Forget these, but for pinned ones; returns what was forgotten."""
        ...

    def verify(self) -> list[bytes]:
        """Read every chunk; forgets and returns those that went bad."""
        ...

    def batch(self) -> AbstractContextManager[None]:
        """Within it many chunks are made durable together. A crash inside loses some of the batch, never the store."""
        ...

    def close(self) -> None: ...


class StoreBase:
    """What all stores share: the one door where bytes are verified, both ways, and pins."""

    def __init__(self) -> None:
        self._pins: dict[bytes, int] = {}

    def put_chunk(self, chunk: Chunk) -> None:
        raise NotImplementedError

    def get_frame(self, digest: bytes) -> bytes:
        raise NotImplementedError

    def put(self, frame: bytes) -> bytes:
        chunk = check_frame(frame)
        self.put_chunk(chunk)
        return chunk.digest

    def add(self, data: bytes | memoryview) -> bytes:
        chunk = pack(data)
        self.put_chunk(chunk)
        return chunk.digest

    def pin(self, digests: Iterable[bytes]) -> None:
        for digest in digests:
            self._pins[digest] = self._pins.get(digest, 0) + 1

    def unpin(self, digests: Iterable[bytes]) -> None:
        for digest in digests:
            left = self._pins.get(digest, 0) - 1
            if left > 0:
                self._pins[digest] = left
            else:
                self._pins.pop(digest, None)


def not_found(digest: bytes) -> NotFoundError:
    return NotFoundError(
        f"The image store lacks chunk {digest.hex()}.",
        fix="Fetch the image from a peer that has it, or build it again.",
    )


def corrupt(digest: bytes, why: str) -> CorruptDataError:
    return CorruptDataError(
        f"Chunk {digest.hex()} went bad in the image store and was dropped.",
        why=why,
        fix="It is fetched or built again when it is next needed; check the disk if this happens often.",
    )
