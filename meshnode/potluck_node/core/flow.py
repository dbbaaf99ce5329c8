"""Credit-based flow control of one lease stream, sans-IO: messages in, frames out, and back.

A frame is a run of segments. A segment is a 4-byte header (1 bit each "more follows", "control", "payload"; 29 bits
length) and a piece of one encoded message, or of a large payload that goes ahead of its message. These cost credit,
which the receiver grants as it consumes; control messages are small, whole, cost nothing and overtake. So a slow reader
holds up only its own lease, and never the connection. Payloads are written to memory of their own, piece by piece.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from potluck.errors import RemoteProtocolError
from potluck.frames import CONTENTS_MAX, FRAME_BYTES_MAX
from potluck.runner.memory import Spool
from potluck.wire.common import PAYLOAD_BYTES_MAX
from potluck.wire.lease import CREDIT_BYTES

_HEADER = struct.Struct(">I")
_MORE, _CONTROL, _PAYLOAD = 1 << 31, 1 << 30, 1 << 29
_LENGTH = _PAYLOAD - 1

# Large enough that headers and encryption cost little, small enough that control messages wait at most a millisecond.
SEGMENT_BYTES_MAX = 256 << 10
# Many small messages share a frame: one encryption and one write for all.
FRAME_FILL_BYTES = 256 << 10
CONTROL_BYTES_MAX = 64 << 10
# Without its payload.
MESSAGE_BYTES_MAX = FRAME_BYTES_MAX


class FlowSender:
    """Holds messages until credit allows them."""

    def __init__(self, credit: int = CREDIT_BYTES) -> None:
        self._credit = credit
        self._data: deque[tuple[memoryview, int, int]] = deque()
        self._control: deque[bytes] = deque()
        self.waiting_bytes = 0

    def post(self, message: bytes, contents: Sequence[bytes] = (), *, control: bool) -> None:
        """Queue one encoded message, and the payloads that go ahead of it."""
        if control:
            self._control.append(message)
            return
        for payload in contents:
            self._queue(payload, _PAYLOAD)
        self._queue(message, 0)

    def _queue(self, data: bytes, kind: int) -> None:
        self._data.append((memoryview(data), 0, kind))
        self.waiting_bytes += len(data)

    def grant(self, amount: int) -> None:
        """The receiver consumed `amount` bytes."""
        self._credit += amount
        if self._credit > 2 * CREDIT_BYTES:
            raise RemoteProtocolError("The peer grants more credit than was ever used.")

    def frame(self) -> bytes | None:
        """The next frame to send, or None when there is nothing that may go now."""
        parts: list[bytes | memoryview] = []
        size = 0
        while self._control:
            message = self._control.popleft()
            parts += (_HEADER.pack(len(message) | _CONTROL), message)
            size += len(message)
        while self._data and size < FRAME_FILL_BYTES:
            piece = self._take()
            if piece is None:
                break
            parts += piece
            size += len(piece[1])
        return b"".join(parts) if parts else None

    def _take(self) -> tuple[bytes, memoryview] | None:
        message, start, kind = self._data[0]
        size = min(len(message) - start, SEGMENT_BYTES_MAX)
        if size > self._credit:
            return None
        self._credit -= size
        self.waiting_bytes -= size
        end = start + size
        if end == len(message):
            self._data.popleft()
            return _HEADER.pack(size | kind), message[start:end]
        self._data[0] = (message, end, kind)
        return _HEADER.pack(size | kind | _MORE), message[start:end]


class FlowReceiver:
    """Puts segments together and counts what may be granted back. `make` gives what a payload is written to."""

    def __init__(self, credit: int = CREDIT_BYTES, make: Callable[[], Spool] = Spool) -> None:
        self._allowed, self._make = credit, make
        self._spool: Spool | None = None
        self._contents: list[memoryview] = []
        self._consumed = 0
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, frame: bytes) -> Iterator[tuple[bytes, list[memoryview]]]:
        """Yield each whole message and its payloads. Raises `RemoteProtocolError` when the peer breaks the rules, or
        there is no room for a payload."""
        view, position = memoryview(frame), 0
        while position < len(frame):
            if len(frame) - position < _HEADER.size:
                raise RemoteProtocolError("A frame ends inside a segment header.")
            (header,) = _HEADER.unpack_from(frame, position)
            start, size = position + _HEADER.size, header & _LENGTH
            position = start + size
            if position > len(frame):
                raise RemoteProtocolError("A segment is longer than its frame.")
            if header & _CONTROL:
                yield _control(bytes(view[start:position]), header), []
                continue
            self._count(size)
            if header & _PAYLOAD:
                self._write(view[start:position], header)
                continue
            message = self._segment(bytes(view[start:position]), header)
            if message is not None:
                contents, self._contents = self._contents, []
                yield message, contents

    def close(self) -> None:
        """Throw away what came of a payload."""
        if self._spool is not None:
            self._spool.close()
        self._contents.clear()

    def _count(self, size: int) -> None:
        self._allowed -= size
        if self._allowed < 0:
            raise RemoteProtocolError("The peer sends more than it was granted.")
        self._consumed += size

    def _write(self, piece: memoryview, header: int) -> None:
        try:
            self._spool = self._spool or self._make()
            self._spool.write(piece)
            if self._spool.size > PAYLOAD_BYTES_MAX or len(self._contents) >= CONTENTS_MAX:
                raise RemoteProtocolError("The peer sends a payload that is too large.")
            if not header & _MORE:
                self._contents.append(self._spool.seal())
                self._spool = None
        except OSError as error:
            raise RemoteProtocolError("There is no room for a payload.", why=str(error)) from None

    def _segment(self, piece: bytes, header: int) -> bytes | None:
        self._size += len(piece)
        if self._size > MESSAGE_BYTES_MAX:
            raise RemoteProtocolError("The peer sends a message that is too large.")
        self._parts.append(piece)
        if header & _MORE:
            return None
        whole = b"".join(self._parts) if len(self._parts) > 1 else piece
        self._parts, self._size = [], 0
        return whole

    def credit_due(self) -> int:
        """Bytes to grant now; 0 while it is too little to be worth a message."""
        if self._consumed < CREDIT_BYTES // 4:
            return 0
        due, self._consumed = self._consumed, 0
        self._allowed += due
        return due


def _control(message: bytes, header: int) -> bytes:
    if len(message) > CONTROL_BYTES_MAX or header & (_MORE | _PAYLOAD):
        raise RemoteProtocolError("A control message is too large.")
    return message
