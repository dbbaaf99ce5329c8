"""Frames: a 4-byte big-endian length, then that many bytes of one msgpack message.

Shared by every byte stream (control socket, worker socket, lease stream). Sans-IO: bytes in, messages out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from potluck.errors import LocalProtocolError, RemoteProtocolError

HEADER = struct.Struct(">I")

# One message holds at most one payload plus its envelope. Payloads are limited to 256 MiB (wire.PAYLOAD_BYTES_MAX):
# enough for arguments, small enough that a peer cannot make us hold gigabytes for a single frame.
FRAME_BYTES_MAX = 257 << 20


def encode_frame(body: bytes) -> bytes:
    """Prefix `body` with its length. Raises `LocalProtocolError` when it exceeds `FRAME_BYTES_MAX`."""
    if len(body) > FRAME_BYTES_MAX:
        raise LocalProtocolError(f"A message of {len(body)} bytes is over the limit of {FRAME_BYTES_MAX}.")
    return HEADER.pack(len(body)) + body


class FrameReader:
    """Cuts a byte stream into frames.

    `limit` is the largest body accepted, in bytes; a larger one raises `RemoteProtocolError` before it is read.
    """

    def __init__(self, limit: int = FRAME_BYTES_MAX) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        """Add received bytes and yield each body that is now whole."""
        self._buffer += data
        position = 0
        try:
            while len(self._buffer) - position >= HEADER.size:
                (size,) = HEADER.unpack_from(self._buffer, position)
                if size > self._limit:
                    raise RemoteProtocolError(
                        f"A frame announces {size} bytes; at most {self._limit} are accepted.",
                        why="The other side is broken, speaks another protocol, or is hostile.",
                    )
                end = position + HEADER.size + size
                if len(self._buffer) < end:
                    break
                body = bytes(memoryview(self._buffer)[position + HEADER.size : end])
                position = end
                yield body
        finally:
            del self._buffer[:position]

    @property
    def pending(self) -> int:
        """Bytes of a frame that has begun and is not whole yet."""
        return len(self._buffer)
