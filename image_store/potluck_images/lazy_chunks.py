"""The chunks that a mounted image reads: from the store, or asked for and waited for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable

import trio

from potluck_images.errors import CorruptDataError, ImageStoreError, NotFoundError
from potluck_images.lazy_tree import Span
from potluck_images.store import ChunkStore, not_found

# Unpacked chunks that are kept: bundles of small files are read file by file, and the kernel keeps what was read.
KEPT_BYTES_MAX = 64 << 20

# The node gives up on a chunk long before this; a read never hangs, even if the node does.
NEED_TIMEOUT_S = 60.0

# A chunk that was fetched and is gone again at once was evicted or went bad: once more, then the read fails.
FETCHES_MAX = 3

# First uses are told this often, seconds, or when there are so many; the profile only needs their order.
TELL_S, TELL_MAX = 0.5, 256


class LazyChunks:
    """`need` asks the node for chunks, which answers by `have` or `lost`; `touched` tells it of first uses."""

    def __init__(
        self,
        store: ChunkStore,
        need: Callable[[tuple[bytes, ...]], Awaitable[None]],
        touched: Callable[[tuple[bytes, ...]], Awaitable[None]],
    ) -> None:
        self._store, self._need, self._touched = store, need, touched
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._kept_bytes = 0
        self._waiting: dict[bytes, trio.Event] = {}
        self._lost: set[bytes] = set()
        self._seen: set[bytes] = set()
        self._untold: list[bytes] = []
        self._tell = trio.Event()

    async def read(self, spans: list[Span]) -> bytes:
        """The bytes of these spans. Raises `ImageStoreError` when a chunk cannot be had."""
        found: dict[bytes, bytes] = {}
        for _ in range(FETCHES_MAX):
            missing = [span.digest for span in spans if not self._load(span.digest, found)]
            if not missing:
                return b"".join(found[span.digest][span.offset : span.offset + span.size] for span in spans)
            await self._fetch(missing)
        raise not_found(missing[0])

    def _load(self, digest: bytes, found: dict[bytes, bytes]) -> bool:
        if digest in found:
            return True
        self._note(digest)
        data = self._kept.get(digest)
        if data is None:
            try:
                data = self._store.get(digest)
            except (NotFoundError, CorruptDataError):
                return False
            self._keep(digest, data)
        else:
            self._kept.move_to_end(digest)
        found[digest] = data
        return True

    def _note(self, digest: bytes) -> None:
        if digest not in self._seen:
            self._seen.add(digest)
            self._untold.append(digest)
            self._tell.set()

    def _keep(self, digest: bytes, data: bytes) -> None:
        self._kept[digest] = data
        self._kept_bytes += len(data)
        while self._kept_bytes > KEPT_BYTES_MAX:
            _, old = self._kept.popitem(last=False)
            self._kept_bytes -= len(old)

    async def _fetch(self, digests: list[bytes]) -> None:
        """Ask for what nobody has asked for yet, and wait for all of it."""
        fresh = tuple(digest for digest in dict.fromkeys(digests) if digest not in self._waiting)
        for digest in fresh:
            self._lost.discard(digest)
            self._waiting[digest] = trio.Event()
        events = [self._waiting[digest] for digest in digests]
        if fresh:
            await self._need(fresh)
        with trio.move_on_after(NEED_TIMEOUT_S) as waited:
            for event in events:
                await event.wait()
        if waited.cancelled_caught:
            self.lost(tuple(digests))
        for digest in digests:
            if digest in self._lost:
                raise not_found(digest)

    def have(self, digests: tuple[bytes, ...]) -> None:
        """These are in the store now."""
        for digest in digests:
            if (event := self._waiting.pop(digest, None)) is not None:
                event.set()

    def lost(self, digests: tuple[bytes, ...]) -> None:
        """Nobody has these: whoever waits gets an error; whoever reads next asks again."""
        self._lost.update(digest for digest in digests if digest in self._waiting)
        self.have(digests)

    async def report(self) -> None:
        """Tell of first uses until cancelled."""
        while True:
            await self._tell.wait()
            if len(self._untold) < TELL_MAX:
                await trio.sleep(TELL_S)
            await self.report_now()

    async def report_now(self) -> None:
        """Tell of what was not told yet."""
        told, self._untold, self._tell = tuple(self._untold), [], trio.Event()
        await self._touched(told)


def reason(error: ImageStoreError) -> str:
    """One line for the log."""
    return f"{error.what} {error.why}".strip()
