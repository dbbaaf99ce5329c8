"""HTTP/1.1 of one connection: bytes to requests, and answers to bytes (RFC 9112). Pure.

llhttp, in `httptools`, finds where a message begins and ends. It refuses what two parsers could understand differently
(both lengths, lines folded or ended by LF alone, …); what it leaves to its user is refused here.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple

import httptools

from potluck.wire.web import Headers
from potluck_node.core.web import HEADER_BYTES_MAX, TOO_MANY_HEADERS, Answer, header_bytes

BAD_REQUEST = Answer(400, "This is no request of HTTP/1.1.")
# What an origin server is asked for: others are for proxies.
ODD_TARGET = Answer(400, "The target of a request begins with /.")
NO_ONE_HOST = Answer(400, "A request has one Host header.")
ODD_ENCODING = Answer(501, "The only transfer encoding is chunked.")
ODD_UPGRADE = Answer(400, "Only a WebSocket can be asked for, and without a body.")
HALF = Answer(408, "The request did not arrive in time.")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Head(NamedTuple):
    """Names of headers are in lower case. After the answer the connection goes on if `keep_alive`. With `continues` the
    client waits to be told that its body is wanted."""

    method: str
    version: str
    target: bytes
    headers: Headers
    keep_alive: bool
    websocket: bool
    continues: bool


class End(NamedTuple):
    """The request is whole."""


END = End()
# A head, parts of its body, its end; an answer in place of them is the last of its connection.
Event = Head | bytes | End | Answer


class Requests:
    """`rest` is what follows a head that asks for a WebSocket: nothing of it is parsed here."""

    def __init__(self) -> None:
        self.rest = b""
        self._parser = httptools.HttpRequestParser(self)
        self._events: list[Event] = []
        # Bytes since the last that were of use: of a head, or of what frames a body.
        self._spent = 0
        # Whether the request is the connection's last.
        self._over = self._in_body = self._last = False
        self._target, self._headers = b"", list[tuple[bytes, bytes]]()

    @property
    def begun(self) -> bool:
        """Whether there is a part of a request that is not whole."""
        return bool(self._spent)

    def feed(self, data: bytes) -> list[Event]:
        """At most some 64 KiB at once, so that what is spent is known well enough."""
        self._events = events = list[Event]()
        if self._over:
            return events
        self._spent += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._over, self.rest = True, data[upgrade.args[0] :]
        except httptools.HttpParserError:
            self._refuse(BAD_REQUEST)
        if self._spent > HEADER_BYTES_MAX + len(data):
            self._refuse(TOO_MANY_HEADERS)
        return events

    def _refuse(self, answer: Answer) -> None:
        if not self._over:
            self._over = True
            self._events.append(answer)

    # What the parser calls

    def on_message_begin(self) -> None:
        self._target, self._headers, self._in_body = b"", [], False

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        # What comes after a chunked body is nothing that an application is shown.
        if not self._in_body:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._over:
            return
        self._in_body = True
        parser, fields = self._parser, dict(self._headers)
        version = parser.get_http_version()
        upgrade = parser.should_upgrade()
        websocket = upgrade and fields.get(b"upgrade", b"").lower() == b"websocket"
        head = Head(
            parser.get_method().decode(), version, self._target, tuple(self._headers),
            parser.should_keep_alive() and not upgrade, websocket,
            fields.get(b"expect", b"").lower() == b"100-continue",
        )  # fmt: skip
        if wrong := _wrong(head, fields, upgrade):
            self._refuse(wrong)
            return
        self._last = not head.keep_alive
        self._events.append(head)

    def on_body(self, data: bytes) -> None:
        self._spent = 0
        if not self._over:
            self._events.append(data)

    def on_message_complete(self) -> None:
        self._spent = 0
        if not self._over:
            self._events.append(END)
            self._over = self._last


def _wrong(head: Head, fields: dict[bytes, bytes], upgrade: bool) -> Answer | None:
    if head.version not in ("1.0", "1.1"):
        return BAD_REQUEST
    if not head.target.startswith((b"/", b"*")):
        return ODD_TARGET
    if sum(name == b"host" for name, _ in head.headers) > 1 or (head.version == "1.1" and b"host" not in fields):
        return NO_ONE_HOST
    coding = fields.get(b"transfer-encoding")
    if coding is not None and (coding.lower() != b"chunked" or head.version == "1.0"):
        return ODD_ENCODING
    if upgrade and (coding is not None or fields.get(b"content-length", b"0").strip(b"0")):
        return ODD_UPGRADE
    if header_bytes(head.headers) > HEADER_BYTES_MAX:
        return TOO_MANY_HEADERS
    return None


_STATUS = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in HTTPStatus}
# RFC 9110, sections 15.3.5 and 15.4.5.
_BODILESS = (204, 304)


@dataclass
class Response:
    """What is said to a request, in messages as of ASGI. `over` once all is said; the connection goes on after it if
    `keep_alive`."""

    request: Head
    begun: bool = False
    over: bool = False
    keep_alive: bool = False
    # Bytes of the body that are still to come, where that was said.
    _left: int | None = None
    _chunked: bool = False
    _bodiless: bool = False
    _start: tuple[int, list[tuple[bytes, bytes]]] | None = None

    def take(self, message: dict[str, Any], date: bytes) -> bytes:
        """The bytes to send; a head goes with what follows it."""
        if message["type"].endswith(".start"):
            self._start = message["status"], message["headers"]
            return b""
        body, more = message["body"], message["more_body"]
        if self._start is None:
            return self._body(body, more)
        (status, headers), self._start = self._start, None
        head = self._head(status, headers, None if more else len(body), date)
        self.begun = True
        return head + self._body(body, more)

    def _head(self, status: int, headers: list[tuple[bytes, bytes]], size: int | None, date: bytes) -> bytes:
        self._bodiless = self.request.method == "HEAD" or status in _BODILESS
        self._left = next((int(value) for name, value in headers if name == b"content-length"), None)
        self.keep_alive = self.request.keep_alive
        parts = [_STATUS.get(status) or b"HTTP/1.1 %d \r\n" % status]
        for name, value in headers:
            if status != 204 or name != b"content-length":
                parts += (name, b": ", value, b"\r\n")
        if self._left is None and not self._bodiless:
            parts.append(self._framing(size))
        if not any(name == b"date" for name, _ in headers):
            parts.append(date)
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        elif self.request.version == "1.0":
            parts.append(b"connection: keep-alive\r\n")
        parts.append(b"\r\n")
        return b"".join(parts)

    def _framing(self, size: int | None) -> bytes:
        """How the client finds the end of the body."""
        if size is not None:
            self._left = size
            return b"content-length: %d\r\n" % size
        if self.request.version == "1.0":
            self.keep_alive = False
            return b""
        self._chunked = True
        return b"transfer-encoding: chunked\r\n"

    def _body(self, data: bytes, more: bool) -> bytes:
        self.over = not more
        if self._bodiless:
            return b""
        if self._chunked:
            chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            return chunk if more else chunk + b"0\r\n\r\n"
        if self._left is not None:
            # More than was said would be taken for the next answer, with less the client waits for ever.
            said, self._left = self._left, max(0, self._left - len(data))
            if len(data) > said or (self._left and not more):
                self.keep_alive = False
            return data[:said]
        return data
