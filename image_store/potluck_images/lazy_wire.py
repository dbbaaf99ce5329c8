"""Node ↔ mount process, over a socket pair: which chunks a mounted image needs. The bytes travel through the store."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

LENGTH = struct.Struct(">I")
# A profile of a large image names some 20,000 chunks of 32 bytes.
MESSAGE_BYTES_MAX = 4 << 20


class _Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    pass


class Need(_Message, frozen=True):
    """Mount → node: a read waits for these chunks."""

    digests: tuple[bytes, ...]


class Touched(_Message, frozen=True):
    """Mount → node: chunks read for the first time, in order: the access profile."""

    digests: tuple[bytes, ...]


class Mounted(_Message, frozen=True):
    """Mount → node: the image can be used."""


class MountFailed(_Message, frozen=True):
    why: str


class Have(_Message, frozen=True):
    """Node → mount: these are in the store now."""

    digests: tuple[bytes, ...]


class Lost(_Message, frozen=True):
    """Node → mount: nobody has these; the read fails."""

    digests: tuple[bytes, ...]


FromMount = Need | Touched | Mounted | MountFailed
ToMount = Have | Lost

_encoder = msgspec.msgpack.Encoder()


def encode(message: FromMount | ToMount) -> bytes:
    """One framed message."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


class Reader:
    """Cuts a byte stream into messages of one direction. Raises `ValueError` for anything else."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[FromMount] | msgspec.msgpack.Decoder[ToMount]) -> None:
        self._decoder = decoder
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[FromMount | ToMount]:
        self._buffer += data
        while len(self._buffer) >= LENGTH.size:
            (size,) = LENGTH.unpack_from(self._buffer)
            if size > MESSAGE_BYTES_MAX:
                raise ValueError(f"a message of {size} bytes")
            if len(self._buffer) < LENGTH.size + size:
                return
            body = bytes(self._buffer[LENGTH.size : LENGTH.size + size])
            del self._buffer[: LENGTH.size + size]
            yield self._decoder.decode(body)


def from_mount() -> Reader:
    """What the node reads."""
    return Reader(msgspec.msgpack.Decoder(FromMount))


def to_mount() -> Reader:
    """What the mount reads."""
    return Reader(msgspec.msgpack.Decoder(ToMount))
