"""Frames: a 4-byte big-endian length, then that many bytes of one msgpack message.

Shared by every byte stream (control socket, worker socket, lease stream). Sans-IO: bytes in, messages out.
A large payload goes ahead of its message, in which it is empty: a header `CONTENT`, 8 bytes of size, then its bytes; or
a header `DESCRIPTOR` with which a descriptor of sealed memory travels (SCM_RIGHTS, unix(7)), and 8 bytes of size.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from potluck.errors import LocalProtocolError, RemoteProtocolError
from potluck.runner.memory import Spool, check_sealed, keep, sealed

HEADER = struct.Struct(">I")
SIZE = struct.Struct(">Q")

# A message without its payload: what is left are functions, exceptions and texts. Small enough
# that a peer cannot make us hold gigabytes for a single frame.
FRAME_BYTES_MAX = 257 << 20

# Instead of a length: a payload follows, in the stream or in a descriptor.
CONTENT, DESCRIPTOR = 0x80000000, 0x80000001

# As wire.PAYLOAD_BYTES_MAX, whose import takes longer; a test compares them.
PAYLOAD_BYTES_MAX = 2 << 30
# Payloads of one message: inputs of a batch, or of a spawn, of which few are large.
CONTENTS_MAX = 1024

# Room for the descriptors of one message; the kernel never hands over those of two at once (unix(7)).
ANCILLARY_BYTES = socket.CMSG_SPACE(4 * 4)

# A payload is written in pieces of this size, bytes, so that no write holds more.
PIECE_BYTES = 1 << 20


def encode_frame(body: bytes) -> bytes:
    """Prefix `body` with its length. Raises `LocalProtocolError` when it exceeds `FRAME_BYTES_MAX`."""
    if len(body) > FRAME_BYTES_MAX:
        raise LocalProtocolError(f"A message of {len(body)} bytes is over the limit of {FRAME_BYTES_MAX}.")
    return HEADER.pack(len(body)) + body


class Piece(NamedTuple):
    """Bytes to write; with `payload`, its descriptor goes along."""

    data: bytes | memoryview
    payload: memoryview | None = None

    @property
    def weight(self) -> int:
        """What it holds, bytes."""
        return len(self.data if self.payload is None else self.payload)

    @property
    def descriptor(self) -> int:
        """To send along, -1 for none."""
        found = sealed(self.payload)
        return found.descriptor if found else -1


def content_pieces(payload: bytes | memoryview, descriptors: bool) -> Iterator[Piece]:
    """What announces a payload. With `descriptors`, the other side takes them."""
    size = SIZE.pack(len(payload))
    if descriptors and sealed(payload) and isinstance(payload, memoryview):
        yield Piece(HEADER.pack(DESCRIPTOR) + size, payload)
        return
    yield Piece(HEADER.pack(CONTENT) + size)
    view = memoryview(payload)
    for start in range(0, len(view), PIECE_BYTES):
        yield Piece(view[start : start + PIECE_BYTES])


class Outbox:
    """What waits to be written, in order."""

    def __init__(self) -> None:
        self._pieces: deque[Piece] = deque()
        self.bytes = 0

    def add(self, body: bytes, contents: Sequence[bytes | memoryview] = (), descriptors: bool = False) -> None:
        """A message, and the payloads that go ahead of it."""
        for payload in contents:
            for piece in content_pieces(payload, descriptors):
                self._put(piece)
        self._put(Piece(encode_frame(body)))

    def _put(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self.bytes += piece.weight

    def next(self) -> Piece | None:
        """What to write next; small pieces together."""
        if not self._pieces:
            return None
        first = self._pop()
        if first.payload is not None or not self._small():
            return first
        parts, size = [first.data], len(first.data)
        while self._small() and size < PIECE_BYTES:
            parts.append(self._pop().data)
            size += len(parts[-1])
        return Piece(b"".join(parts))

    def put_back(self, piece: Piece) -> None:
        """What could not be written comes first again."""
        self._pieces.appendleft(piece)
        self.bytes += piece.weight

    def _pop(self) -> Piece:
        piece = self._pieces.popleft()
        self.bytes -= piece.weight
        return piece

    def _small(self) -> bool:
        return bool(self._pieces) and self._pieces[0].payload is None and len(self._pieces[0].data) < PIECE_BYTES


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
                    raise _too_large(size, self._limit)
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


class MessageReader:
    """As `FrameReader`, with the payloads that go ahead of messages.

    `make` gives what a payload is written to. Descriptors are taken from `descriptors`, where the driver puts them;
    without it none is accepted.
    """

    def __init__(
        self,
        make: Callable[[], Spool] = Spool,
        limit: int = FRAME_BYTES_MAX,
        descriptors: deque[int] | None = None,
    ) -> None:
        self._make, self._limit, self._descriptors = make, limit, descriptors
        self._buffer = bytearray()
        self._contents: list[memoryview] = []
        self._spool: Spool | None = None
        self._rest = 0

    def feed(self, data: bytes) -> Iterator[tuple[bytes, list[memoryview]]]:
        """Add received bytes; yield each body that is now whole, and its payloads. Raises `RemoteProtocolError`."""
        view = memoryview(data)
        self._buffer += view[self._take(view) :]
        position = 0
        try:
            while (found := self._next(position)) is not None:
                position, body = found
                if body is not None:
                    contents, self._contents = self._contents, []
                    yield body, contents
        finally:
            del self._buffer[:position]

    def close(self) -> None:
        """Throw away what came of a payload, and descriptors that nothing was said about."""
        if self._spool is not None:
            self._spool.close()
        self._contents.clear()
        while self._descriptors:
            os.close(self._descriptors.popleft())

    def _next(self, at: int) -> tuple[int, bytes | None] | None:
        """Where the frame at `at` ends, and its body, None for a payload; None when it is not whole."""
        if self._rest or len(self._buffer) - at < HEADER.size:
            return None
        (size,) = HEADER.unpack_from(self._buffer, at)
        start = at + HEADER.size
        if size in (CONTENT, DESCRIPTOR):
            return self._begin(start, size == DESCRIPTOR)
        if size > self._limit:
            raise _too_large(size, self._limit)
        if len(self._buffer) < start + size:
            return None
        return start + size, bytes(memoryview(self._buffer)[start : start + size])

    def _begin(self, at: int, in_descriptor: bool) -> tuple[int, None] | None:
        if len(self._buffer) < at + SIZE.size:
            return None
        (size,) = SIZE.unpack_from(self._buffer, at)
        at += SIZE.size
        if not 0 < size <= PAYLOAD_BYTES_MAX or len(self._contents) >= CONTENTS_MAX:
            raise _too_large(size, PAYLOAD_BYTES_MAX)
        if in_descriptor:
            self._contents.append(self._received(size))
            return at, None
        self._spool, self._rest = self._new(), size
        with memoryview(self._buffer)[at:] as view:
            return at + self._take(view), None

    def _take(self, view: memoryview) -> int:
        """Write what belongs to the payload that is coming; returns how much that was."""
        if not self._rest or self._spool is None:
            return 0
        piece = view[: self._rest]
        try:
            self._spool.write(piece)
            self._rest -= len(piece)
            if not self._rest:
                self._contents.append(self._spool.seal())
                self._spool = None
        except OSError as error:
            raise _no_memory(error) from None
        finally:
            count = len(piece)
            piece.release()
        return count

    def _new(self) -> Spool:
        try:
            return self._make()
        except OSError as error:
            raise _no_memory(error) from None

    def _received(self, size: int) -> memoryview:
        if not self._descriptors:
            raise RemoteProtocolError("A payload was announced in a descriptor, and none came along.")
        descriptor = self._descriptors.popleft()
        try:
            check_sealed(descriptor, size)
        except ValueError as error:
            os.close(descriptor)
            raise RemoteProtocolError("The other side broke the protocol.", why=str(error)) from None
        try:
            return keep(descriptor, size)
        except OSError as error:
            raise _no_memory(error) from None


def _too_large(size: int, limit: int) -> RemoteProtocolError:
    return RemoteProtocolError(
        f"A frame announces {size} bytes; at most {limit} are accepted.",
        why="The other side is broken, speaks another protocol, or is hostile.",
    )


def _no_memory(error: OSError) -> RemoteProtocolError:
    return RemoteProtocolError("There is no room for a large payload.", why=str(error), fix="Send less at once.")
