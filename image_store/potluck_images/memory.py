"""A chunk store in memory: for tests, simulations and images that are built and sent at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from potluck_images.chunk import Chunk, unpack
from potluck_images.digest import digest as digest_of
from potluck_images.errors import CorruptDataError, StoreFullError
from potluck_images.store import StoreBase, corrupt, not_found


class MemoryStore(StoreBase):
    """`bytes_max` caps the compressed bytes."""

    def __init__(self, bytes_max: int | None = None) -> None:
        super().__init__()
        self._frames: dict[bytes, bytes] = {}
        self._bytes = 0
        self._bytes_max = bytes_max

    def put_chunk(self, chunk: Chunk) -> None:
        if chunk.digest in self._frames:
            return
        if self._bytes_max is not None and self._bytes + len(chunk.frame) > self._bytes_max:
            raise StoreFullError(f"The image store in memory is at its limit of {self._bytes_max} bytes.")
        self._bytes += len(chunk.frame)
        self._frames[chunk.digest] = chunk.frame

    def get(self, digest: bytes) -> bytes:
        frame = self._frames.get(digest)
        if frame is None:
            raise not_found(digest)
        try:
            data = unpack(frame)
        except CorruptDataError as error:
            self._forget(digest)
            raise corrupt(digest, error.what) from None
        if digest_of(data) != digest:
            self._forget(digest)
            raise corrupt(digest, "Its bytes have another digest.")
        return data

    def get_frame(self, digest: bytes) -> bytes:
        frame = self._frames.get(digest, b"")
        self.get(digest)
        return frame

    def has(self, digest: bytes) -> bool:
        return digest in self._frames

    def missing(self, digests: Iterable[bytes]) -> list[bytes]:
        return [digest for digest in dict.fromkeys(digests) if digest not in self._frames]

    def discard(self, digests: Iterable[bytes]) -> list[bytes]:
        gone = [digest for digest in dict.fromkeys(digests) if digest in self._frames and digest not in self._pins]
        for digest in gone:
            self._forget(digest)
        return gone

    def verify(self) -> list[bytes]:
        bad = []
        for digest in list(self._frames):
            try:
                self.get(digest)
            except CorruptDataError:
                bad.append(digest)
        return bad

    @contextmanager
    def batch(self) -> Iterator[None]:
        yield

    def close(self) -> None:
        self._frames.clear()

    def _forget(self, digest: bytes) -> None:
        self._bytes -= len(self._frames.pop(digest, b""))
