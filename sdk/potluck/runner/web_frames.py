"""The client's end of a WebSocket (RFC 6455), to a server in the same sandbox."""

from __future__ import annotations

import _thread
import os
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from http.client import HTTPConnection
    from typing import Any, BinaryIO

    from .codec import Message

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
# As `wire.web.SOCKET_MESSAGE_BYTES_MAX`; a test compares them.
MESSAGE_BYTES_MAX = 1 << 20
# RFC 6455, section 7.4.1.
TOO_BIG, GONE = 1009, 1006


class Closed(Exception):  # noqa: N818 - how every connection ends
    """The server has closed, or is gone."""

    def __init__(self, code: int = GONE, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code, self.reason = code, reason


class Frames:
    """Messages by the socket of a connection that was upgraded; `reader` has what was read ahead of it."""

    def __init__(self, connection: socket.socket, reader: Any) -> None:
        self._socket = connection
        self._reader: BinaryIO = reader
        self._lock = _thread.allocate_lock()

    @staticmethod
    def put_handshake(connection: HTTPConnection) -> None:
        """The headers that ask for a WebSocket."""
        from base64 import b64encode

        connection.putheader("Connection", "Upgrade")
        connection.putheader("Upgrade", "websocket")
        connection.putheader("Sec-WebSocket-Version", "13")
        connection.putheader("Sec-WebSocket-Key", b64encode(os.urandom(16)))

    def receive(self) -> tuple[str, bytes]:
        """The next message, as ("text" or "bytes", data). Raises `Closed`."""
        kind, data = 0, b""
        while True:
            final, code, payload = self._frame()
            if code == PING:
                self._write(PONG, payload)
            elif code == CLOSE:
                raise Closed(*_close_fields(payload))
            elif code in (CONTINUATION, TEXT, BINARY):
                kind, data = kind or code, data + payload
                if len(data) > MESSAGE_BYTES_MAX:
                    raise Closed(TOO_BIG, "the server's message is too big")
                if final:
                    return ("text" if kind == TEXT else "bytes"), data

    def _frame(self) -> tuple[bool, int, bytes]:
        first, second = self._read(2)
        size = second & 0x7F
        if size >= 126:
            (size,) = struct.unpack(">H", self._read(2)) if size == 126 else struct.unpack(">Q", self._read(8))
        if size > MESSAGE_BYTES_MAX:
            raise Closed(TOO_BIG, "the server's message is too big")
        mask = self._read(4) if second & 0x80 else b""
        data = self._read(size)
        return bool(first & 0x80), first & 0x0F, _masked(data, mask) if mask else data

    def _read(self, size: int) -> bytes:
        try:
            data = self._reader.read(size)
        except OSError:
            data = b""
        if len(data) < size:
            raise Closed
        return data

    def send(self, piece: Message) -> None:
        """A `SocketText`, `SocketBytes` or `SocketClosed`."""
        value: Any = piece[1]
        if piece[0] == "SocketClosed":
            self._write(CLOSE, b"" if value == GONE else struct.pack(">H", value))
        elif piece[0] == "SocketText":
            self._write(TEXT, value.encode())
        else:
            self._write(BINARY, value)

    def end(self) -> None:
        """The client is gone, without a word."""
        self._socket.shutdown(socket.SHUT_RDWR)

    def _write(self, code: int, data: bytes) -> None:
        size = len(data)
        head = bytes([0x80 | code])
        if size < 126:
            head += bytes([0x80 | size])
        else:
            head += struct.pack(">BH", 0xFE, size) if size < 1 << 16 else struct.pack(">BQ", 0xFF, size)
        mask = os.urandom(4)
        with self._lock:
            self._socket.sendall(head + mask + _masked(data, mask))


def _masked(data: bytes, mask: bytes) -> bytes:
    """XOR with the mask, over and over: as one number, since a loop takes a thousand times as long."""
    size = len(data)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")


def _close_fields(payload: bytes) -> tuple[int, str]:
    if len(payload) < 2:
        return 1005, ""
    (code,) = struct.unpack(">H", payload[:2])
    return code, payload[2:].decode(errors="replace")
