"""The chunk store on disk: append-only pack files and an SQLite index.

Crash-safe: records are written, made durable, and only then indexed. What a crash left behind an indexed end is indexed
on the next open if it is whole, else cut off. Several processes may use one folder at once: each writes its own pack.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from potluck_images.chunk import Chunk, unpack
from potluck_images.digest import digest as digest_of
from potluck_images.errors import CorruptDataError, StoreFullError
from potluck_images.index import Index
from potluck_images.packfile import PACK_BYTES_MAX, PackFile, Record, read_frame, sync_folder
from potluck_images.store import StoreBase, corrupt, not_found

# Within a batch, this much is made durable at once: large enough that fsync costs little, small enough to lose.
BATCH_BYTES_MAX = 64 << 20


class DiskStore(StoreBase):
    """`folder` is made if it is missing. `bytes_max` caps the bytes of all packs; None leaves it to the disk."""

    def __init__(self, folder: Path | str, bytes_max: int | None = None) -> None:
        super().__init__()
        self._packs = Path(folder) / "packs"
        self._packs.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._bytes_max = bytes_max
        self._lock = threading.RLock()
        self._index = Index(Path(folder) / "index.sqlite")
        self._writer: PackFile | None = None
        self._pending: dict[bytes, Record] = {}
        self._batches = 0
        self._recover()
        self._bytes = sum(path.stat().st_size for path in self._packs.glob("*.pack"))

    def put_chunk(self, chunk: Chunk) -> None:
        with self._lock:
            if self.has(chunk.digest):
                return
            self._check_cap(chunk)
            record = self._open_writer().append(chunk)
            self._pending[chunk.digest] = record
            self._bytes += len(chunk.frame)
            if not self._batches or record.end - next(iter(self._pending.values())).offset > BATCH_BYTES_MAX:
                self._flush()

    def get(self, digest: bytes) -> bytes:
        return self._read(digest)[1]

    def get_frame(self, digest: bytes) -> bytes:
        return self._read(digest)[0]

    def has(self, digest: bytes) -> bool:
        with self._lock:
            return digest in self._pending or self._index.has(digest)

    def missing(self, digests: Iterable[bytes]) -> list[bytes]:
        wanted = list(dict.fromkeys(digests))
        with self._lock:
            known = self._index.known(wanted)
            return [digest for digest in wanted if digest not in known and digest not in self._pending]

    def discard(self, digests: Iterable[bytes]) -> list[bytes]:
        with self._lock:
            self._flush()
            unpinned = [digest for digest in dict.fromkeys(digests) if digest not in self._pins]
            known = self._index.known(unpinned)
            self._index.remove(known)
            return [digest for digest in unpinned if digest in known]

    def verify(self) -> list[bytes]:
        with self._lock:
            digests = [*self._index.digests(), *self._pending]
        return [digest for digest in digests if self._went_bad(digest)]

    @contextmanager
    def batch(self) -> Iterator[None]:
        with self._lock:
            self._batches += 1
        try:
            yield
        finally:
            with self._lock:
                self._batches -= 1
                if not self._batches:
                    self._flush()

    def close(self) -> None:
        with self._lock:
            self._flush()
            self._index.close()
            if self._writer:
                self._writer.close()
                self._writer = None

    def _read(self, digest: bytes) -> tuple[bytes, bytes]:
        with self._lock:
            found = self._find(digest)
        if found is None:
            raise not_found(digest)
        frame = read_frame(*found)
        why = "Its record is gone from the pack file."
        if frame is not None:
            try:
                data = unpack(frame)
                if digest_of(data) == digest:
                    return frame, data
                why = "Its bytes have another digest."
            except CorruptDataError as error:
                why = error.why or error.what
        self._forget(digest)
        raise corrupt(digest, why)

    def _find(self, digest: bytes) -> tuple[Path, Record] | None:
        if self._writer and digest in self._pending:
            return self._writer.path, self._pending[digest]
        found = self._index.find(digest)
        return (self._packs / found[0], found[1]) if found else None

    def _forget(self, digest: bytes) -> None:
        with self._lock:
            self._pending.pop(digest, None)
            self._index.remove([digest])

    def _went_bad(self, digest: bytes) -> bool:
        try:
            self._read(digest)
        except CorruptDataError:
            return True
        return False

    def _check_cap(self, chunk: Chunk) -> None:
        if self._bytes_max is not None and self._bytes + len(chunk.frame) > self._bytes_max:
            raise StoreFullError(
                f"The image store is at its cap of {self._bytes_max} bytes.",
                fix="Raise the cap or remove images.",
            )

    def _open_writer(self) -> PackFile:
        if self._writer and self._writer.end >= PACK_BYTES_MAX:
            self._flush()
            self._writer.close()
            self._writer = None
        if self._writer is None:
            self._writer = self._adopt_pack() or PackFile.create(self._packs)
        return self._writer

    def _adopt_pack(self) -> PackFile | None:
        """A pack with room that nobody writes to."""
        for path in sorted(self._packs.glob("*.pack")):
            if path.stat().st_size < PACK_BYTES_MAX and (pack := PackFile.try_open(path)):
                self._recover_pack(pack)
                return pack
        return None

    def _flush(self) -> None:
        """Make what is pending durable, then index it. When that fails the pack is cut back to what is indexed."""
        if not self._pending or not self._writer:
            return
        start = next(iter(self._pending.values())).offset
        records, self._pending = list(self._pending.values()), {}
        try:
            self._writer.sync()
            self._index.add(self._writer.path.name, records, self._writer.end)
        except Exception:
            self._writer.cut(start)
            raise

    def _recover(self) -> None:
        """Bring the index up to date with packs whose writer died."""
        sync_folder(self._packs)
        for path in sorted(self._packs.glob("*.pack")):
            if pack := PackFile.try_open(path):
                try:
                    self._recover_pack(pack)
                finally:
                    pack.close()

    def _recover_pack(self, pack: PackFile) -> None:
        known, size = self._index.end(pack.path.name), pack.end
        if size == known:
            return
        records = list(pack.scan(min(known, size)))
        pack.cut(pack.end)
        pack.sync()
        self._index.add(pack.path.name, records, pack.end)
