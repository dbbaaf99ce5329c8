"""Fetching images from the mesh: from the caller, from whoever offers them, and from whoever the DHT says has part."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from potluck.wire.lease import LeaseProgress
from potluck_images.disk import DiskStore
from potluck_images.manifest import LAYER_BYTES_MAX
from potluck_images.pull import ImagePull, Progress, missing_chunks
from potluck_node import lazy_profile
from potluck_node.chunks import Claims, ProfileOf, Pull, Puller, Throttle, serve_chunks
from potluck_node.clock import Clock
from potluck_node.core.offers import OfferBook
from potluck_node.transport.interface import Stream, Transport

log = logging.getLogger("potluck.fetch")

# How often a running pull looks for further sources, seconds: soon enough to matter for a pull of a minute.
SEARCH_S = 5.0


def image_key(image: str) -> str:
    """Under which nodes that have the image, or part of it, are found in the DHT."""
    return f"image/{image}"


@dataclass(frozen=True)
class Caps:
    """What the owner allows: bytes per second each way (0: no cap), and the unpacked size of one image."""

    upload: int = 0
    download: int = 0
    image_bytes: int = LAYER_BYTES_MAX


class Fetcher:
    """Moves images in and out, within the owner's caps."""

    def __init__(
        self, transport: Transport, store: DiskStore, book: OfferBook, clock: Clock, caps: Caps = Caps()
    ) -> None:
        self._transport, self._store, self._book, self._clock = transport, store, book, clock
        self._upload, self._download = Throttle(caps.upload, clock), Throttle(caps.download, clock)
        self._image_bytes_max = caps.image_bytes
        self._claims = Claims()
        # Images that are on their way: what we have of them, we serve. A dict, for its order.
        self.partial: dict[str, None] = {}
        # Which chunks a function reads of an image, for peers that ask.
        self.profile_of: ProfileOf = lambda image, function: b""

    async def lacks(self, image: str) -> bool:
        """Whether any chunk of the image is missing here."""
        return bool(await trio.to_thread.run_sync(missing_chunks, self._store, image))

    async def fetch(self, image: str, caller: str, progress: Callable[[LeaseProgress], None]) -> None:
        """Return when the store has the whole image. Raises `ImageStoreError` when nobody can give what is missing.

        Chunks that another fetch is after are left to it, and waited for.
        """

        def say(at: Progress) -> None:
            progress(LeaseProgress("image", at.done, at.total))

        self.partial[image] = None
        try:
            while await self.lacks(image):
                await self._pull(image, caller, say)
                if await self.lacks(image):
                    await self._claims.wait()
        finally:
            self.partial.pop(image, None)

    async def fetch_private(self, image: str, peers: Sequence[str]) -> None:
        """As `fetch`, from these peers alone; nobody else hears of it. Raises `ImageStoreError`."""
        while await self.lacks(image):
            pull = self._new_pull(image)
            try:
                await self.puller(pull).run(self._others(peers), lambda progress: None)
            finally:
                self._claims.release(image)

    def _new_pull(self, image: str) -> ImagePull:
        claim, salt = partial(self._claims.claim, image), self._transport.peer.encode()
        return ImagePull(self._store, image, self._image_bytes_max, claim, salt)

    def _others(self, peers: Sequence[str]) -> list[str]:
        return [peer for peer in dict.fromkeys(peers) if peer != self._transport.peer]

    async def _pull(self, image: str, caller: str, say: Callable[[Progress], None]) -> None:
        pull = self._new_pull(image)
        try:
            await self.drive(self.puller(pull), image, caller, say)
        finally:
            self._claims.release(image)

    async def describe(self, image: str, caller: str, private: bool = False) -> ImagePull:
        """Have the config and the manifests of an image in the store, and nothing else. Raises as `fetch`."""
        pull = ImagePull(self._store, image, self._image_bytes_max, lambda digests: [])
        await self.drive(self.puller(pull), image, caller, lambda progress: None, private)
        return pull

    def puller(self, pull: Pull) -> Puller:
        return Puller(self._transport, self._store, self._clock, pull, self._download)

    async def drive(
        self, puller: Puller, image: str, caller: str, say: Callable[[Progress], None], private: bool = False
    ) -> None:
        """Run `puller` with all who have the image, and those who come to have it; if `private`, the caller alone."""
        if private:
            await puller.run(self._others([caller]), say)
            return
        sources = self.sources(image, caller)
        log.info("pulling image %s from %d peers", image[:12], len(sources))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._find_more, puller, image)
            await puller.run(sources, say)
            nursery.cancel_scope.cancel()

    def sources(self, image: str, caller: str) -> list[str]:
        """Who is likely to have the image, but for ourselves."""
        return [peer for peer in dict.fromkeys([caller, *self._offering(image)]) if peer != self._transport.peer]

    async def ask_profile(self, image: str, function: str, caller: str) -> list[bytes]:
        """The chunks that the function reads of the image, in order, as peers have seen it run; none if none has."""
        others = [offer.peer for offer in self._book.fresh(self._clock.now_us())]
        peers = [*dict.fromkeys([*self.sources(image, caller), *others])]
        asked = [peer for peer in peers if peer != self._transport.peer]
        return await lazy_profile.ask(self._transport, self._clock, asked, image, function)

    def _offering(self, image: str) -> list[str]:
        return [offer.peer for offer in self._book.fresh(self._clock.now_us()) if image in offer.images]

    async def _find_more(self, puller: Puller, image: str) -> None:
        """Look for further sources while the pull runs."""
        while True:
            for peer in (*self._offering(image), *await self._transport.find_providers(image_key(image))):
                if peer != self._transport.peer:
                    puller.join(peer)
            await trio.sleep(SEARCH_S)

    async def serve(self, stream: Stream) -> None:
        """Answer one incoming chunk stream."""
        await serve_chunks(self._store, self._clock, stream, self._upload, self.profile_of)
