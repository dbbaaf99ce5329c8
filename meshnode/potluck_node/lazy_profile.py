"""Access profiles: which chunks a function reads of an image, in order, so that a cold node fetches them ahead.

A profile is the digests, joined, as a chunk in the store: named by its content, and sent and verified like any other.
It is a hint: what it names and the image does not have is ignored, and one that was evicted is recorded again.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import trio

from potluck.wire import chunks as messages
from potluck_images.chunk import CHUNK_BYTES_MAX, check_frame, unpack
from potluck_images.digest import DIGEST_BYTES, digest, from_hex
from potluck_images.errors import CorruptDataError, ImageStoreError
from potluck_images.store import ChunkStore
from potluck_node.chunks import CHUNKS_PROTOCOL
from potluck_node.clock import Clock
from potluck_node.link import StreamLink
from potluck_node.transport.interface import Transport, TransportError

log = logging.getLogger("potluck.lazy")

# All that fits into one chunk: 30,720 chunks of some 64 KiB are 2 GiB.
DIGESTS_MAX = CHUNK_BYTES_MAX // DIGEST_BYTES
# Profiles that are remembered; a name and a digest each.
PROFILES_MAX = 1000
# How long peers may take to answer, seconds, and how many are asked: after that, chunks are fetched as they are read.
ASK_TIMEOUT_S = 3.0
ASK_PEERS_MAX = 8


class Profiles:
    """The profiles of this node. `home` has one file for each (image, function), with the digest of its profile."""

    def __init__(self, home: Path, store: ChunkStore) -> None:
        self._folder, self._store = home / "profiles", store
        self._folder.mkdir(parents=True, exist_ok=True)

    def named(self, image: str, function: str) -> bytes:
        """The profile's digest; the function's last one with another image if there is none; empty if it never ran.

        A function whose source was edited has a new image, nearly all chunks of which are the old ones.
        """
        for name in (image, ""):
            with suppress(OSError, ImageStoreError):
                return from_hex(self._path(name, function).read_text())
        return b""

    def read(self, image: str, function: str) -> list[bytes]:
        """The digests, in order; none if there is no profile."""
        with suppress(ImageStoreError):
            return split(self._store.get(self.named(image, function)))
        return []

    def add(self, image: str, function: str, digests: Iterable[bytes]) -> None:
        """What was read now, then what was read on earlier runs. Raises `StoreFullError`."""
        merged = [*dict.fromkeys([*digests, *self.read(image, function)])][:DIGESTS_MAX]
        if not merged:
            return
        name = self._store.add(b"".join(merged))
        for path in (self._path(image, function), self._path("", function)):
            fresh = path.with_suffix(f".{secrets.token_hex(4)}")
            fresh.write_text(name.hex())
            fresh.replace(path)
        self._forget_oldest()

    def _path(self, image: str, function: str) -> Path:
        """Names come from strangers, so that files are named by a digest."""
        return self._folder / digest(f"{image}\0{function}".encode()).hex()

    def _forget_oldest(self) -> None:
        found = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        for path in found[:-PROFILES_MAX]:
            path.unlink(missing_ok=True)


def split(data: bytes) -> list[bytes]:
    """The digests that a profile joins; a stranger's bytes give strange digests and no error."""
    return [data[start : start + DIGEST_BYTES] for start in range(0, len(data), DIGEST_BYTES)]


async def ask(transport: Transport, clock: Clock, peers: list[str], image: str, function: str) -> list[bytes]:
    """The first profile that any of these peers has; none if nobody answers in time."""
    found: list[bytes] = []
    with trio.move_on_after(ASK_TIMEOUT_S):
        async with trio.open_nursery() as nursery:

            async def one(peer: str) -> None:
                digests = await _ask_one(transport, clock, peer, image, function)
                if digests and not found:
                    found.extend(digests)
                    nursery.cancel_scope.cancel()

            for peer in peers[:ASK_PEERS_MAX]:
                nursery.start_soon(one, peer)
    return found


async def _ask_one(transport: Transport, clock: Clock, peer: str, image: str, function: str) -> list[bytes]:
    try:
        stream = await transport.open(peer, CHUNKS_PROTOCOL)
    except TransportError:
        return []
    found: list[bytes] = []

    def take(message: object) -> None:
        if isinstance(message, messages.ProfileNamed) and message.digest:
            link.post(messages.WantChunks((message.digest,)))
            return
        if isinstance(message, messages.ChunkData):
            with suppress(CorruptDataError):
                found.extend(_checked(message))
        link.finish()

    link = StreamLink(stream, messages.FromServer, take, clock)
    link.post(messages.AskProfile(image, function))
    await link.run()
    return found


def _checked(message: messages.ChunkData) -> list[bytes]:
    return split(unpack(message.frame)) if check_frame(message.frame).digest == message.digest else []
