"""Moving chunks between nodes: serving ours, and pulling an image from several peers at once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Protocol

import trio

from potluck.wire import chunks as messages
from potluck_images import sync
from potluck_images.chunk import CHUNK_BYTES_MAX
from potluck_images.errors import CorruptDataError, ImageError, ImageStoreError, NotFoundError
from potluck_images.pull import Progress
from potluck_images.store import ChunkStore
from potluck_node.clock import Clock
from potluck_node.core.rate import TokenBucket
from potluck_node.link import StreamLink
from potluck_node.transport.interface import Stream, Transport, TransportError

log = logging.getLogger("potluck.chunks")

CHUNKS_PROTOCOL = "/potluck/chunks/1"

# Requests of one peer that wait to be answered; a puller asks for at most 256 chunks at a time.
REQUESTS_MAX = 512
# Chunks that arrived and wait to be checked and stored: 64 MiB at the very most.
ARRIVED_MAX = (64 << 20) // CHUNK_BYTES_MAX
# Peers that one pull asks at the same time: twice as many as the DHT names at once.
SOURCES_MAX = 40
TICK_S = 1.0
# With no peer left that has what is missing, how long to wait for one to come back.
STUCK_TIMEOUT_S = 10.0


class Claims:
    """Which pull fetches which chunk, so that images that share chunks, pulled at once, fetch each only once."""

    def __init__(self) -> None:
        self._owners: dict[bytes, object] = {}
        self._released = trio.Event()

    def claim(self, owner: object, digests: list[bytes]) -> list[bytes]:
        """Those that nobody else fetches now; they are the owner's until `release`. Called in worker threads, one at
        a time for each owner; a dict's `setdefault` is atomic."""
        return [digest for digest in digests if self._owners.setdefault(digest, owner) is owner]

    def release(self, owner: object) -> None:
        self._owners = {digest: other for digest, other in self._owners.items() if other is not owner}
        self._released.set()
        self._released = trio.Event()

    async def wait(self) -> None:
        """Wait until some other pull has ended."""
        if self._owners:
            await self._released.wait()


class Throttle:
    """One direction of this node's traffic in chunks, at most `bytes_per_s` (0: no cap)."""

    def __init__(self, bytes_per_s: int, clock: Clock) -> None:
        self._bucket, self._clock = TokenBucket(bytes_per_s), clock

    async def take(self, amount: int) -> None:
        """Wait until `amount` bytes may move."""
        await trio.sleep(self._bucket.wait_us(amount, self._clock.now_us()) / 1e6)


Request = messages.WantChunks | messages.AskProfile
# The digest of the access profile of (image, function); empty if there is none.
ProfileOf = Callable[[str, str], bytes]


class Pull(Protocol):
    """What a `Puller` drives: `ImagePull`, `LazyPull`."""

    @property
    def progress(self) -> Progress: ...

    def start(self) -> list[sync.Action]: ...

    def handle(self, event: sync.Event) -> list[sync.Action]: ...


async def serve_chunks(
    store: ChunkStore, clock: Clock, stream: Stream, upload: Throttle, profile_of: ProfileOf = lambda *name: b""
) -> None:
    """Answer one peer's requests for as long as its stream lives."""
    asked, requests = trio.open_memory_channel[Request](REQUESTS_MAX)

    def take(message: object) -> None:
        if isinstance(message, Request):
            with suppress(trio.WouldBlock):  # a peer that asks without reading waits for nothing
                asked.send_nowait(message)

    link = StreamLink(stream, messages.ToServer, take, clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_answer, store, link, requests, upload, profile_of)
        await link.run()
        nursery.cancel_scope.cancel()


async def _answer(
    store: ChunkStore,
    link: StreamLink,
    requests: trio.MemoryReceiveChannel[Request],
    upload: Throttle,
    profile_of: ProfileOf,
) -> None:
    async for request in requests:
        if isinstance(request, messages.AskProfile):
            link.post(messages.ProfileNamed(await trio.to_thread.run_sync(profile_of, request.image, request.function)))
            continue
        for digest in request.digests[: messages.WANT_MAX]:
            answer = await trio.to_thread.run_sync(_load, store, digest)
            if isinstance(answer, messages.ChunkData):
                await upload.take(len(answer.frame))
            link.post(answer)
            await link.drained()


def _load(store: ChunkStore, digest: bytes) -> messages.ChunkData | messages.ChunkMissing:
    try:
        return messages.ChunkData(digest, store.get_frame(digest))
    except (NotFoundError, CorruptDataError):
        return messages.ChunkMissing(digest)


class Puller:
    """Pulls one image into the store. Sources may be added while it runs: `join`."""

    def __init__(self, transport: Transport, store: ChunkStore, clock: Clock, pull: Pull, download: Throttle) -> None:
        self._transport, self._store, self._clock = transport, store, clock
        self._pull, self._download = pull, download
        self._links: dict[str, StreamLink] = {}
        self._arrived, self._events = trio.open_memory_channel[sync.Event](ARRIVED_MAX)
        self._known: set[str] = set()
        self._missing, self._stuck_at = 0, 0.0
        self._nursery: trio.Nursery | None = None

    async def run(self, peers: list[str], progress: Callable[[Progress], None]) -> None:
        """Return when the store has all that this pull claimed. Raises `ImageStoreError` when no peer can give it."""
        async with trio.open_nursery() as self._nursery:
            for peer in peers:
                self.join(peer)
            self._nursery.start_soon(self._tick)
            await self._loop(progress)
            self._nursery.cancel_scope.cancel()

    def join(self, peer: str) -> None:
        """Also ask this peer, unless there are enough."""
        if self._nursery and peer not in self._known and len(self._known) < SOURCES_MAX:
            self._known.add(peer)
            self._nursery.start_soon(self._converse, peer)

    async def want(self, digests: tuple[bytes, ...], urgent: bool) -> None:
        """Also fetch these, `urgent` ones before all others."""
        await self._arrived.send(sync.Wanted(digests, urgent))

    async def _tick(self) -> None:
        while True:
            await self._arrived.send(sync.Tick(self._clock.now_us()))
            await trio.sleep(TICK_S)

    async def _converse(self, peer: str) -> None:
        try:
            stream = await self._transport.open(peer, CHUNKS_PROTOCOL)
        except TransportError as error:
            log.info("cannot ask %s for chunks: %s", peer, error)
            self._known.discard(peer)
            return
        came: list[sync.Event] = []

        async def hand_on() -> None:
            while came:
                event = came.pop(0)
                if isinstance(event, sync.Received):
                    await self._download.take(len(event.frame))
                await self._arrived.send(event)

        link = StreamLink(stream, messages.FromServer, partial(_take, peer, came), self._clock, hand_on)
        self._links[peer] = link
        try:
            await self._arrived.send(sync.PeerJoined(peer))
            await link.run()
        finally:
            del self._links[peer]
        self._known.discard(peer)
        await self._arrived.send(sync.PeerFailed(peer))

    async def _loop(self, progress: Callable[[Progress], None]) -> None:
        """Take whatever has arrived, in one go: one thread hop and one flush of the store for many chunks."""
        done = self._do(await trio.to_thread.run_sync(self._pull.start))
        while not done:
            events = [await self._events.receive()]
            with suppress(trio.WouldBlock):
                while True:
                    events.append(self._events.receive_nowait())
            done = self._do(await trio.to_thread.run_sync(self._digest, events))
            progress(self._pull.progress)
            if self._missing and trio.current_time() > self._stuck_at + STUCK_TIMEOUT_S:
                raise _stuck(self._missing)

    def _digest(self, events: list[sync.Event]) -> list[sync.Action]:
        """In a worker thread: check what came, and store it."""
        actions: list[sync.Action] = []
        with self._store.batch():
            for event in events:
                for action in self._pull.handle(event):
                    if isinstance(action, sync.Store):
                        self._store.put_chunk(action.chunk)
                    else:
                        actions.append(action)
        return actions

    def _do(self, actions: list[sync.Action]) -> bool:
        """Whether the image is whole."""
        done = False
        for action in actions:
            if isinstance(action, sync.Ask):
                self._missing = 0
                self._ask(action)
            elif isinstance(action, sync.Drop):
                log.warning("no longer asking %s for chunks: %s", action.peer, action.why)
                if action.peer in self._links:
                    self._links[action.peer].finish()
            elif isinstance(action, sync.Stuck):
                self._missing, self._stuck_at = len(action.missing), trio.current_time()
            elif isinstance(action, sync.Done):
                done = True
        return done

    def _ask(self, action: sync.Ask) -> None:
        link = self._links.get(action.peer)
        if link:
            for start in range(0, len(action.digests), messages.WANT_MAX):
                link.post(messages.WantChunks(action.digests[start : start + messages.WANT_MAX]))


def _take(peer: str, came: list[sync.Event], message: object) -> None:
    if isinstance(message, messages.ChunkData):
        came.append(sync.Received(peer, message.digest, message.frame))
    elif isinstance(message, messages.ChunkMissing):
        came.append(sync.Missing(peer, message.digest))


def _stuck(missing: int) -> ImageStoreError:
    return ImageError(
        "The image cannot be fetched.",
        why=f"no peer that can be reached has {missing} of its chunks",
        fix="Keep the caller's node running until a provider has the image.",
    )
