"""Chunk exchange on the stream `/potluck/chunks/1`: one side asks, the other answers each digest, in order.

An image's config and manifests are chunks like any other, so this is all that an image needs to travel. Credit and
heartbeats are those of a lease.
"""

from __future__ import annotations

from potluck.wire.common import Message
from potluck.wire.lease import Credit, Heartbeat

# Chunks asked for in one message: at 64 KiB each about 16 MiB on the way, enough to fill a long fat link.
WANT_MAX = 256


class WantChunks(Message, frozen=True):
    """Ask for chunks by digest (32 bytes each)."""

    digests: tuple[bytes, ...]


class ChunkData(Message, frozen=True):
    """`frame` is the zstd frame; the receiver checks that it unpacks to `digest`."""

    digest: bytes
    frame: bytes


class ChunkMissing(Message, frozen=True):
    digest: bytes


class AskProfile(Message, frozen=True):
    """Ask which chunks `function` (its app and name) reads of an image, as recorded on earlier runs."""

    image: str
    function: str


class ProfileNamed(Message, frozen=True):
    """The answer: the profile is the chunk of this digest, or there is none (empty).

    Its bytes are digests of chunks, 32 bytes each, in the order of their first use.
    """

    digest: bytes


ToServer = WantChunks | AskProfile | Heartbeat | Credit
FromServer = ChunkData | ChunkMissing | ProfileNamed | Heartbeat | Credit
