"""A server of the user's own in the sandbox: requests go on to its port, WebSockets too."""

from __future__ import annotations

import _thread
import contextlib
import socket
import time
from http.client import HTTPConnection, HTTPException

from .failures import Refusal
from .web import BODY_BYTES_MAX
from .web_blocking import BlockingExchange, ClientGone
from .web_frames import Closed, Frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .codec import Message
    from .web import Exchange

HOST = "127.0.0.1"
# How often it is looked whether the server listens, seconds.
LOOK_S = 0.02
# RFC 9110, section 7.6.1: what concerns one connection alone. The two ends have connections of their own.
_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade".split()
)
# What this end says itself, of the client and of a WebSocket.
_FORWARDED = frozenset(b"x-forwarded-for x-forwarded-proto x-forwarded-prefix".split())
_SOCKET = frozenset(b"sec-websocket-key sec-websocket-version sec-websocket-extensions".split())


class ServerSite:
    """`start_server` starts what listens on `port`."""

    def __init__(self, start_server: Callable[[], Any], port: int, startup_s: float) -> None:
        self._start_server, self._port, self._startup_s = start_server, port, startup_s
        self._begun = False

    def exchange(self, worker: Any, number: int, request: Message) -> Exchange:
        return BlockingExchange(worker, number, request)

    def start(self) -> None:
        if not self._begun:
            self._start_server()
            self._begun = True
        deadline = time.monotonic() + self._startup_s
        while not self._listens():
            if time.monotonic() > deadline:
                raise Refusal(
                    "execution",
                    f"Nothing listens on port {self._port} after {self._startup_s:g} s.",
                    fix="Raise startup_timeout=, or have the server listen on 127.0.0.1 and on this port.",
                )
            time.sleep(LOOK_S)

    def _listens(self) -> bool:
        try:
            socket.create_connection((HOST, self._port), LOOK_S * 10).close()
        except OSError:
            return False
        return True

    def answer(self, exchange: Exchange) -> None:
        exchange.begin(self._respond)

    def stop(self) -> None:
        """It ends with the sandbox."""

    def _respond(self, exchange: Any) -> None:
        connection = HTTPConnection(HOST, self._port)
        exchange.abort = lambda: _hang_up(connection)
        try:
            if exchange.request[0] == "SocketRequest":
                _tunnel(exchange, connection)
            else:
                _send(exchange, connection)
                _receive(exchange, connection)
        except ClientGone:
            exchange.finish()
        except (OSError, HTTPException) as error:
            if exchange.gone:
                exchange.finish()
                return
            why = f"{type(error).__name__}: {error}"
            raise Refusal("execution", f"The server on port {self._port} did not answer.", why=why) from error
        finally:
            connection.close()


def _hang_up(connection: HTTPConnection) -> None:
    """Whoever reads or writes it ends."""
    if connection.sock is not None:
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)


def _send(exchange: BlockingExchange, connection: HTTPConnection) -> None:
    request: Any = exchange.request
    _, method, scheme, _, root, _, raw_path, query, headers, client, body, more = request
    connection.putrequest(method, _target(root, raw_path, query), skip_host=True, skip_accept_encoding=True)
    known = _put_headers(connection, headers, _HOP | _FORWARDED)
    _put_forwarded(connection, scheme, root, client)
    chunked = more and b"content-length" not in known
    if chunked:
        connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    try:
        _send_body(exchange, connection, body, more, chunked)
    except (BrokenPipeError, ConnectionResetError):
        return  # it answered without reading all


def _send_body(exchange: BlockingExchange, connection: HTTPConnection, body: bytes, more: bool, chunked: bool) -> None:
    while True:
        if body:
            connection.send(b"%x\r\n%b\r\n" % (len(body), body) if chunked else body)
        if not more:
            break
        piece: Any = exchange.next()
        if piece is None:
            raise ClientGone
        _, body, more = piece
    if chunked:
        connection.send(b"0\r\n\r\n")


def _receive(exchange: BlockingExchange, connection: HTTPConnection) -> None:
    response = connection.getresponse()
    headers = _headers(response)
    body = response.read1(BODY_BYTES_MAX)
    if response.isclosed() or response.length == 0:
        exchange.finish(["ResponseHead", response.status, headers, body, False])
        return
    exchange.show(response.status, headers, body, True)
    while body := response.read1(BODY_BYTES_MAX):
        exchange.show_more(body, True)
    if response.length:
        raise HTTPException(f"the response ended {response.length} bytes early")
    exchange.show_more(b"", False)
    exchange.finish()


def _headers(response: Any) -> list[list[bytes]]:
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.getheaders()]
    return [[name, value] for name, value in pairs if name.lower() not in _HOP]


def _target(root: str, raw_path: bytes, query: bytes) -> str:
    """The path below where the function is: servers think that they have the whole host."""
    path = raw_path.decode("latin-1").removeprefix(root)
    return (path or "/") + (f"?{query.decode('latin-1')}" if query else "")


def _put_headers(connection: HTTPConnection, headers: Any, without: frozenset[bytes]) -> set[bytes]:
    known = set()
    for name, value in headers:
        if name.lower() not in without:
            connection.putheader(name, value)
            known.add(name.lower())
    return known


def _put_forwarded(connection: HTTPConnection, scheme: str, root: str, client: Any) -> None:
    connection.putheader("X-Forwarded-Proto", "https" if scheme in ("https", "wss") else "http")
    connection.putheader("X-Forwarded-Prefix", root)
    if client:
        connection.putheader("X-Forwarded-For", client[0])


# WebSockets


def _tunnel(exchange: BlockingExchange, connection: HTTPConnection) -> None:
    request: Any = exchange.request
    _, scheme, _, root, _, raw_path, query, headers, client, _ = request
    connection.putrequest("GET", _target(root, raw_path, query), skip_host=True, skip_accept_encoding=True)
    _put_headers(connection, headers, _HOP | _FORWARDED | _SOCKET)
    _put_forwarded(connection, scheme, root, client)
    Frames.put_handshake(connection)
    connection.endheaders()
    response = connection.getresponse()
    if response.status != 101:
        exchange.show(response.status, _headers(response), response.read(BODY_BYTES_MAX), False)
        exchange.finish()
        return
    subprotocol = response.getheader("Sec-WebSocket-Protocol")
    exchange.emit(["SocketAccepted", subprotocol, []])
    frames = Frames(connection.sock, response.fp)
    _thread.start_new_thread(_pass_on, (exchange, frames))
    try:
        while True:
            kind, data = frames.receive()
            exchange.check()
            exchange.emit(["SocketText", data.decode()] if kind == "text" else ["SocketBytes", data])
    except Closed as closed:
        exchange.emit(["SocketClosed", closed.code, closed.reason])
        exchange.finish()


def _pass_on(exchange: BlockingExchange, frames: Frames) -> None:
    """What the client says, until it or the server has gone; its end ends the reading, too."""
    try:
        while piece := exchange.next():
            frames.send(piece)
            if piece[0] == "SocketClosed":
                return
        frames.end()
    except OSError:
        return
