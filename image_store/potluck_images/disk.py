"""The chunk store on disk: append-only pack files and an SQLite index.

Crash-safe: records are written, made durable, and only then indexed. What a crash left behind an indexed end is indexed
on the next open if it is whole, else cut off. Several processes may use one folder at once: each writes its own pack.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from potluck_images.chunk import Chunk, unpack
from potluck_images.digest import digest as digest_of
from potluck_images.errors import CorruptDataError, NotFoundError, StoreFullError
from potluck_images.index import Index
from potluck_images.packfile import PACK_BYTES_MAX, PackFile, Record, read_frame, sync_folder
from potluck_images.store import StoreBase, corrupt, not_found

# Within a batch, this much is made durable at once: large enough that fsync costs little, small enough to lose.
BATCH_BYTES_MAX = 64 << 20

# A pack is written anew when no more than this share of it is in use: for each byte written at least one is won.
LIVE_SHARE_MAX = 0.5
# Moved at once while others wait for the store: some 50 ms.
SLICE_BYTES_MAX = 16 << 20

Progress = Callable[[int, int], None]


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
        self._bytes = self.disk_bytes()

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

    def verify(self, progress: Progress = lambda done, total: None) -> list[bytes]:
        """As in `ChunkStore`; `progress` receives chunks read and to read, and may end it by raising."""
        digests, bad = self.digests(), []
        for done, digest in enumerate(digests):
            progress(done, len(digests))
            if self._went_bad(digest):
                bad.append(digest)
        return bad

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
            self._close_writer()

    @property
    def bytes_about(self) -> int:
        """As `disk_bytes`, without a look at the disk: what other processes wrote since is not in it."""
        return self._bytes

    def disk_bytes(self) -> int:
        """Bytes of all packs on disk, discarded chunks included."""
        return sum(size for _, size in self._sizes())

    def digests(self) -> list[bytes]:
        """All chunks that are here."""
        with self._lock:
            return [*self._index.digests(), *self._pending]

    def sizes(self) -> dict[bytes, int]:
        """The bytes that each chunk takes in its pack."""
        with self._lock:
            self._flush()
            return self._index.sizes()

    def compact(self, live_share_max: float = LIVE_SHARE_MAX, progress: Progress = lambda done, total: None) -> int:
        """Give the room of discarded chunks back to the disk; returns the bytes won.

        Packs of which no more than `live_share_max` (0 to 1) is in use are written anew, slice by slice; those that
        another process writes to are left out.
        Each step leaves the store whole: a chunk is removed only where its copy is durable and indexed. `progress`
        receives packs done and to do; what it raises ends the work between two slices. Raises `StoreFullError`.
        """
        before = self.disk_bytes()
        with self._lock:
            self._flush()
            self._close_writer()
        with ExitStack() as locks:
            packs = self._mostly_dead(live_share_max, locks)
            for done, pack in enumerate(packs):
                self._rewrite(pack, partial(progress, done, len(packs)))
        with self._lock:
            self._bytes = self.disk_bytes()
        return before - self._bytes

    def _mostly_dead(self, live_share_max: float, locks: ExitStack) -> list[PackFile]:
        """Locked, so that nothing is added to them, here or elsewhere. The emptiest first: they need the least room."""
        found = []
        for path, _ in self._sizes():
            if pack := PackFile.try_open(path):
                with ExitStack() as lock, self._lock:
                    lock.callback(pack.close)
                    self._recover_pack(pack)
                    live = self._index.live().get(path.name, 0)
                    if live <= pack.end * live_share_max:
                        found.append((live, pack))
                        locks.push(lock.pop_all())
        return [pack for _, pack in sorted(found, key=lambda item: item[0])]

    def _rewrite(self, pack: PackFile, progress: Callable[[], None]) -> None:
        with self._lock:
            records = self._index.records(pack.path.name)
        while records:
            progress()
            count = _slice(records)
            self._move(pack, records[:count])
            records = records[count:]
        with self._lock:
            pack.remove()
            self._index.drop_pack(pack.path.name)

    def _move(self, pack: PackFile, records: list[Record]) -> None:
        """Copy, make durable, then point the index at the copies. What went bad stays behind."""
        with self._lock:
            self._flush()
            writer = self._open_writer()
            start = writer.end
            try:
                moved = [writer.append(chunk) for record in records if (chunk := pack.read(record))]
                writer.sync()
                self._index.move(pack.path.name, writer.path.name, moved, writer.end)
            except Exception:
                writer.cut(start)
                raise

    def _sizes(self) -> list[tuple[Path, int]]:
        """Packs and their bytes; one may be removed by another process while they are listed."""
        found = []
        for path in sorted(self._packs.glob("*.pack")):
            with suppress(FileNotFoundError):
                found.append((path, path.stat().st_size))
        return found

    def _read(self, digest: bytes) -> tuple[bytes, bytes]:
        with self._lock:
            found = self._find(digest)
        if found is None:
            raise not_found(digest)
        frame = read_frame(*found)
        if frame is None and self._has_moved(digest, found):
            return self._read(digest)
        why = "Its record is gone from the pack file."
        if frame is not None:
            try:
                data = unpack(frame)
                if digest_of(data) == digest:
                    return frame, data
                why = "Its bytes have another digest."
            except CorruptDataError as error:
                why = error.why or error.what
        self._forget(found)
        raise corrupt(digest, why)

    def _has_moved(self, digest: bytes, found: tuple[Path, Record]) -> bool:
        """Whether a compaction took the pack away between looking up and reading."""
        with self._lock:
            return self._find(digest) != found

    def _find(self, digest: bytes) -> tuple[Path, Record] | None:
        if self._writer and digest in self._pending:
            return self._writer.path, self._pending[digest]
        found = self._index.find(digest)
        return (self._packs / found[0], found[1]) if found else None

    def _forget(self, found: tuple[Path, Record]) -> None:
        path, record = found
        with self._lock:
            if self._pending.get(record.digest) == record:
                del self._pending[record.digest]
            self._index.forget(path.name, record)

    def _went_bad(self, digest: bytes) -> bool:
        try:
            self._read(digest)
        except CorruptDataError:
            return True
        except NotFoundError:  # it was discarded meanwhile
            pass
        return False

    def _check_cap(self, chunk: Chunk) -> None:
        if self._bytes_max is None or self._bytes + len(chunk.frame) <= self._bytes_max:
            return
        self._bytes = self.disk_bytes()  # another process may have made room
        if self._bytes + len(chunk.frame) > self._bytes_max:
            raise StoreFullError(
                f"The image store is at its cap of {self._bytes_max} bytes.",
                fix="Remove images with `potluck image prune`, or raise the cap: store_gib.",
            )

    def _close_writer(self) -> None:
        if self._writer:
            self._writer.close()
            self._writer = None

    def _open_writer(self) -> PackFile:
        if self._writer and self._writer.end >= PACK_BYTES_MAX:
            self._flush()
            self._close_writer()
        if self._writer is None:
            self._writer = self._adopt_pack() or PackFile.create(self._packs)
        return self._writer

    def _adopt_pack(self) -> PackFile | None:
        """A pack with room that nobody writes to."""
        for path in sorted(self._packs.glob("*.pack")):
            if pack := PackFile.try_open(path):
                if pack.end < PACK_BYTES_MAX:
                    self._recover_pack(pack)
                    return pack
                pack.close()
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
        """Bring the index up to date with packs that are gone, and with those whose writer died."""
        sync_folder(self._packs)
        for name in self._index.packs():
            if not (self._packs / name).exists():
                self._index.drop_pack(name)
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


def _slice(records: list[Record]) -> int:
    """How many of the first records are moved at once."""
    total = 0
    for count, record in enumerate(records):
        total += record.frame_size
        if total > SLICE_BYTES_MAX:
            return count + 1
    return len(records)
