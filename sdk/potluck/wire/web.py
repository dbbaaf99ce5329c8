"""Gateway ↔ worker: requests, and what is said while they last. These are the payloads of inputs, pieces and items.

A request is an input. What follows of it travels as pieces, what is answered as items, or, when that is short, as the
outcome alone. Of either at most `AHEAD_BYTES_MAX` is on its way, so that whoever is slow slows down the other side.
"""

from __future__ import annotations

from potluck.wire.common import Message

# Bytes of a body, or of messages on a WebSocket, that may be on their way before they are taken.
AHEAD_BYTES_MAX = 1 << 20
# A worker tells what it has taken once for so many bytes; so much ahead, a message of any size may follow.
TELL_BYTES = 256 << 10
# A WebSocket's message is whole, as it is for Modal, bytes.
SOCKET_MESSAGE_BYTES_MAX = 1 << 20
# A body of a known length up to this travels with its request, bytes.
INLINE_BODY_BYTES_MAX = 64 << 10

Headers = tuple[tuple[bytes, bytes], ...]


class HttpRequest(Message, frozen=True):
    """`path` is decoded and begins with `root`, where the function is; `raw_path` is as it came. With `more`, `body` is
    but the beginning."""

    method: str
    scheme: str
    http_version: str
    root: str
    path: str
    raw_path: bytes
    query: bytes
    headers: Headers
    client: tuple[str, int] | None = None
    body: bytes = b""
    more: bool = False


class SocketRequest(Message, frozen=True):
    """A client wants a WebSocket."""

    scheme: str
    http_version: str
    root: str
    path: str
    raw_path: bytes
    query: bytes
    headers: Headers
    client: tuple[str, int] | None = None
    subprotocols: tuple[str, ...] = ()


class BodyPiece(Message, frozen=True):
    """More of a body, in either direction."""

    data: bytes
    more: bool


class SocketText(Message, frozen=True):
    text: str


class SocketBytes(Message, frozen=True):
    data: bytes


class SocketClosed(Message, frozen=True):
    """Either side closes, or is gone (RFC 6455, section 7.4, has the codes)."""

    code: int
    reason: str = ""


class ResponseHead(Message, frozen=True):
    """Headers are as the application gave them. With `more`, pieces of the body follow."""

    status: int
    headers: Headers
    body: bytes = b""
    more: bool = False


class SocketAccepted(Message, frozen=True):
    subprotocol: str | None = None
    headers: Headers = ()


FromClient = BodyPiece | SocketText | SocketBytes | SocketClosed
FromApp = ResponseHead | BodyPiece | SocketAccepted | SocketText | SocketBytes | SocketClosed
