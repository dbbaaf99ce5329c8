"""Chunk exchange on the stream `/potluck/chunks/1`: the asking side sends requests, the other answers each in order."""

from __future__ import annotations

from potluck.wire.common import Failure, Message

# Chunks asked for in one message: at 64 KiB each about 16 MiB on the way, enough to fill a long fat link.
WANT_MAX = 256


class WantImage(Message, frozen=True):
    """Ask for the image config with this id (hex)."""

    image: str


class ImageConfigData(Message, frozen=True):
    data: bytes


class WantChunks(Message, frozen=True):
    """Ask for chunks by digest (32 bytes each); each is answered by one `ChunkData` or `ChunkMissing`, in order."""

    digests: tuple[bytes, ...]


class ChunkData(Message, frozen=True):
    """`frame` is the zstd frame; the receiver checks that it unpacks to `digest`."""

    digest: bytes
    frame: bytes


class ChunkMissing(Message, frozen=True):
    digest: bytes


ToServer = WantImage | WantChunks
FromServer = ImageConfigData | ChunkData | ChunkMissing | Failure
