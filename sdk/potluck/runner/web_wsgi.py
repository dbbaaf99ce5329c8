"""WSGI applications (PEP 3333), each request in a thread of its own."""

from __future__ import annotations

import io
import sys

from .failures import Refusal
from .web import BODY_BYTES_MAX
from .web_blocking import BlockingExchange, ClientGone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .codec import Message
    from .web import Exchange


class WsgiSite:
    """`make` returns the application."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._app: Any = None

    def exchange(self, worker: Any, number: int, request: Message) -> Exchange:
        return BlockingExchange(worker, number, request)

    def start(self) -> None:
        self._app = self._make()
        if not callable(self._app):
            raise Refusal("invalid", f"The function returned a {type(self._app).__name__}, no WSGI application.")

    def answer(self, exchange: Exchange) -> None:
        exchange.begin(self._respond)

    def stop(self) -> None:
        """There is nothing to end."""

    def _respond(self, exchange: Any) -> None:
        if exchange.request[0] == "SocketRequest":
            raise Refusal("invalid", "A WSGI application has no WebSockets.", fix="Use @potluck.asgi_app().")
        response = Response(exchange)
        found = self._app(environment(exchange), response.start)
        try:
            for part in found:
                response.write(part)
            response.end()
        except ClientGone:
            exchange.finish()
        finally:
            if hasattr(found, "close"):
                found.close()


class Response:
    """What the application sends; its first part waits for the second, so that a short answer is one message."""

    def __init__(self, exchange: BlockingExchange) -> None:
        self._exchange = exchange
        self._head: tuple[int, list[Any]] | None = None
        self._held = b""
        self._shown = False

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        """`start_response`."""
        if exc_info and self._shown:
            raise exc_info[1].with_traceback(exc_info[2])
        if self._head and not exc_info:
            raise RuntimeError("start_response was called twice")
        packed = [[name.encode("latin-1"), value.encode("latin-1")] for name, value in headers]
        self._head = int(status.split(" ", 1)[0]), packed
        return self.write

    def write(self, part: bytes) -> None:
        if not part:
            return
        if self._held or self._shown:
            self._show(self._held, True)
        self._held = bytes(part)

    def end(self) -> None:
        if self._shown or len(self._held) > BODY_BYTES_MAX:
            self._show(self._held, False)
            self._exchange.finish()
            return
        if self._head is None:
            raise RuntimeError("start_response was not called")
        self._exchange.finish(["ResponseHead", *self._head, self._held, False])

    def _show(self, part: bytes, more: bool) -> None:
        if self._head is None:
            raise RuntimeError("start_response was not called")
        if not self._shown:
            self._shown = True
            self._exchange.show(*self._head, part, more)
        elif part or not more:
            self._exchange.show_more(part, more)
        self._held = b""


class Body(io.RawIOBase):
    """What the client sends."""

    def __init__(self, exchange: BlockingExchange) -> None:
        self._exchange = exchange
        first: Any = exchange.request[10]
        self._rest, self._more = memoryview(first), bool(exchange.request[11])

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest and self._more:
            piece: Any = self._exchange.next()
            if piece is None:
                raise ClientGone
            self._rest, self._more = memoryview(piece[1]), bool(piece[2])
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def environment(exchange: BlockingExchange) -> dict[str, Any]:
    """`environ` of a `wire.web.HttpRequest`. What was decoded goes in as PEP 3333 wants it: bytes as Latin-1."""
    request: Any = exchange.request
    _, method, scheme, version, root, path, _, query, headers, client, *_ = request
    found = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": _latin(root),
        "PATH_INFO": _latin(path.removeprefix(root)),
        "QUERY_STRING": query.decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{version}",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "443" if scheme == "https" else "80",
        "REMOTE_ADDR": client[0] if client else "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": io.BufferedReader(Body(exchange)),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in headers:
        _add_header(found, name.decode("latin-1").upper().replace("-", "_"), value.decode("latin-1"))
    return found


def _add_header(found: dict[str, Any], name: str, value: str) -> None:
    key = name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"
    found[key] = f"{found[key]},{value}" if key in found else value


def _latin(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("latin-1")
