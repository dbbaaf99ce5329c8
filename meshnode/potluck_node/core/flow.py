"""Credit-based flow control of one lease stream, sans-IO: messages in, frames out, and back.

A frame is a run of segments. A segment is a 4-byte header (1 bit "more follows", 1 bit "control", 30 bits length) and a
piece of one encoded message. Data segments cost credit, which the receiver grants as it consumes; control messages
are small, whole, cost nothing and overtake. So a slow reader holds up only its own lease, and never the connection.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator

from potluck.errors import RemoteProtocolError
from potluck.wire.common import PAYLOAD_BYTES_MAX
from potluck.wire.lease import CREDIT_BYTES

_HEADER = struct.Struct(">I")
_MORE, _CONTROL = 1 << 31, 1 << 30
_LENGTH = _CONTROL - 1

# Large enough that headers and encryption cost little, small enough that control messages wait at most a millisecond.
SEGMENT_BYTES_MAX = 256 << 10
# Many small messages share a frame: one encryption and one write for all.
FRAME_FILL_BYTES = 256 << 10
CONTROL_BYTES_MAX = 64 << 10
MESSAGE_BYTES_MAX = PAYLOAD_BYTES_MAX + (1 << 20)


class FlowSender:
    """Holds messages until credit allows them."""

    def __init__(self, credit: int = CREDIT_BYTES) -> None:
        self._credit = credit
        self._data: deque[tuple[memoryview, int]] = deque()
        self._control: deque[bytes] = deque()
        self.waiting_bytes = 0

    def post(self, message: bytes, *, control: bool) -> None:
        """Queue one encoded message."""
        if control:
            self._control.append(message)
        else:
            self._data.append((memoryview(message), 0))
            self.waiting_bytes += len(message)

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
        message, start = self._data[0]
        size = min(len(message) - start, SEGMENT_BYTES_MAX)
        if size > self._credit:
            return None
        self._credit -= size
        self.waiting_bytes -= size
        end = start + size
        if end == len(message):
            self._data.popleft()
            return _HEADER.pack(size), message[start:end]
        self._data[0] = (message, end)
        return _HEADER.pack(size | _MORE), message[start:end]


class FlowReceiver:
    """Puts segments together and counts what may be granted back."""

    def __init__(self, credit: int = CREDIT_BYTES) -> None:
        self._allowed = credit
        self._consumed = 0
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, frame: bytes) -> Iterator[bytes]:
        """Yield each whole message. Raises `RemoteProtocolError` when the peer breaks the rules."""
        view, position = memoryview(frame), 0
        while position < len(frame):
            if len(frame) - position < _HEADER.size:
                raise RemoteProtocolError("A frame ends inside a segment header.")
            (header,) = _HEADER.unpack_from(frame, position)
            start, size = position + _HEADER.size, header & _LENGTH
            position = start + size
            if position > len(frame):
                raise RemoteProtocolError("A segment is longer than its frame.")
            message = self._segment(bytes(view[start:position]), header)
            if message is not None:
                yield message

    def _segment(self, piece: bytes, header: int) -> bytes | None:
        if header & _CONTROL:
            if len(piece) > CONTROL_BYTES_MAX or header & _MORE:
                raise RemoteProtocolError("A control message is too large.")
            return piece
        self._allowed -= len(piece)
        self._size += len(piece)
        if self._allowed < 0 or self._size > MESSAGE_BYTES_MAX:
            raise RemoteProtocolError("The peer sends more than it was granted.")
        self._consumed += len(piece)
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
