"""One client's connection to the gateway: reads requests, hands them on one after the other, writes the answers.

One task reads. A request that is there as a whole, and whose answer is, costs no other: whoever brings the answer
writes it. What takes longer, in either direction, has a task of its own.
"""

from __future__ import annotations

import logging
import math
import os
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from email.utils import formatdate
from typing import Any, Protocol

import trio

from potluck_node.core.http import CONTINUE, HALF, Event, Head, Requests, Response
from potluck_node.core.web import Answer, Reply
from potluck_node.gateway_socket import SocketTalk

log = logging.getLogger("potluck.gateway")

# One read of the socket, bytes.
READ_BYTES = 64 << 10
# What may wait of a body for whoever takes it, bytes; then the client is not read.
AHEAD_BYTES_MAX = 256 << 10
# How long a client may take to read what it is sent next (at most some 64 KiB), seconds.
WRITE_TIMEOUT_S = 60.0
HANDSHAKE_TIMEOUT_S = 10.0
# A client that still sends while we close would lose the end of its answer: so long its bytes are thrown away, seconds.
LINGER_S = 2.0
# What a client does that is gone, or never spoke TLS.
GONE = (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError, OSError)

Message = dict[str, Any]


class Site(Protocol):
    """Whoever answers."""

    def take(self, exchange: Exchange | SocketTalk) -> None:
        """Answer it, or `spawn` what does; returns at once."""


class Exchange:
    """One request and its answer. `body` is what came of it so far, all if `whole`. `left` is called when the client
    goes before it was answered."""

    def __init__(self, connection: Connection, head: Head) -> None:
        self.head, self.scheme, self.client = head, connection.scheme, connection.client
        self.body, self.whole = b"", False
        self.left: Callable[[], None] = lambda: None
        self.response = Response(head)
        self._connection = connection
        self._parts: deque[bytes] = deque()
        self.held = 0
        self._told_end = self.gone = False
        self._change = trio.Event()

    # By whoever answers

    def answer(self, messages: Iterable[Message]) -> None:
        """Say all of it now."""
        date = _date()
        self._connection.write(b"".join([self.response.take(message, date) for message in messages]))
        self._connection.end(self)

    def spawn(self, serve: Callable[[], Awaitable[None]]) -> None:
        """Answer in a task, by `receive` and `send`; it is over when that returns."""
        self.left = lambda: None
        self._connection.spawn(self._run, serve)

    async def _run(self, serve: Callable[[], Awaitable[None]]) -> None:
        try:
            await serve()
        except* GONE:
            log.debug("a client has gone")
        except* Exception:
            # Whatever a client makes of a protocol must not end the node.
            log.exception("a request to the gateway failed")
        finally:
            self._connection.end(self)

    async def receive(self) -> Message:
        """The next part of the body, then that the client has gone."""
        if self.head.continues and not (self.whole or self._parts or self.response.begun):
            self.head = self.head._replace(continues=False)
            await self._connection.send(CONTINUE)
        while not (self._parts or self.gone or (self.whole and not self._told_end)):
            self._change = trio.Event()
            await self._change.wait()
        if self.gone or self._told_end:
            return {"type": "http.disconnect"}
        data = b"".join(self._parts)
        self._parts.clear()
        self.held = 0
        self._connection.go_on()
        self._told_end = self.whole
        return {"type": "http.request", "body": data, "more_body": not self.whole}

    async def send(self, message: Message) -> None:
        if data := self.response.take(message, _date()):
            await self._connection.send(data)

    # By the connection

    def feed(self, data: bytes) -> None:
        """More of the body."""
        self._parts.append(data)
        self.held += len(data)
        self._change.set()

    def complete(self) -> None:
        self.whole = True
        self._change.set()

    def leave(self) -> None:
        """The client has gone."""
        self.gone = True
        self._change.set()
        self.left()

    def take_body(self) -> bytes:
        """All of one that is whole."""
        self._told_end, self.held = True, 0
        data = b"".join(self._parts)
        self._parts.clear()
        return data


class Connection:
    """`idle_since` is infinite while there is a request in work."""

    def __init__(self, stream: Any, site: Site, scheme: str, client: tuple[str, int] | None) -> None:
        self._stream, self._site, self.scheme, self.client = stream, site, scheme, client
        self._fd: int = stream.socket.fileno() if isinstance(stream, trio.SocketStream) else -1
        self.idle_since = trio.current_time()
        self._requests = Requests()
        self._came: deque[Event] = deque()
        self._exchange: Exchange | SocketTalk | None = None
        # What was written and is not sent; a task sends it.
        self._unsent, self._sent = b"", trio.Event()
        self._closing = self._advancing = False
        self._room = trio.Event()
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None

    async def serve(self) -> None:
        """Until either side closes."""
        try:
            with self._scope:
                if self._fd < 0:
                    with trio.fail_after(HANDSHAKE_TIMEOUT_S):
                        await self._stream.do_handshake()
                async with trio.open_nursery() as self._nursery:
                    await self._read()
            if self._closing:
                await self._linger()
        except (*GONE, trio.TooSlowError):
            pass
        finally:
            self._nursery = None
            if self._exchange:
                self._exchange.leave()
            await trio.aclose_forcefully(self._stream)

    def expire(self, since: float) -> None:
        """Close it if it has been idle for longer; whoever had begun a request is told."""
        if self.idle_since < since:
            if self._requests.begun:
                self._refuse(HALF)
            self._close()

    def abort(self) -> None:
        self._scope.cancel()

    # Reading

    async def _read(self) -> None:
        while True:
            while self._is_full():
                self._room = trio.Event()
                await self._room.wait()
            try:
                data = await self._some()
            except GONE:
                data = b""
            if not data:
                if self._exchange:
                    self._exchange.leave()
                return
            self._take(data)

    async def _some(self) -> bytes:
        if self._fd < 0:
            found: bytes = await self._stream.receive_some(READ_BYTES)
            return found
        while True:
            # Clients wait for their answer: trying to read first would find nothing.
            await trio.lowlevel.wait_readable(self._fd)
            try:
                return os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                continue

    def _is_full(self) -> bool:
        held = self._exchange.held if self._exchange else 0
        return bool(self._came) or held > AHEAD_BYTES_MAX or len(self._unsent) > AHEAD_BYTES_MAX

    def go_on(self) -> None:
        """There may be room for more."""
        self._room.set()

    def _take(self, data: bytes) -> None:
        if isinstance(self._exchange, SocketTalk):
            self._exchange.feed(data)
            return
        self._came.extend(self._requests.feed(data))
        self._advance()

    def _advance(self) -> None:
        """Hand on what came, as far as the request before it is over. Not nested: some are answered at once."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._came and not self._closing and self._hand_on(self._came[0]):
                pass
        finally:
            self._advancing = False

    def _hand_on(self, event: Event) -> bool:
        """Whether it was taken."""
        exchange = self._exchange
        if isinstance(event, Head):
            if exchange or self._unsent:
                return False
            self._came.popleft()
            self._begin(event)
        elif isinstance(event, Answer):
            if exchange:
                return False
            self._came.popleft()
            self._refuse(event)
            self._close()
        else:
            self._came.popleft()
            if isinstance(exchange, Exchange):
                exchange.feed(event) if isinstance(event, bytes) else exchange.complete()
        return True

    def _begin(self, head: Head) -> None:
        self.idle_since = math.inf
        if head.websocket:
            talk = self._exchange = SocketTalk(self, head)
            self._came.clear()
            talk.feed(self._requests.rest)
            self._site.take(talk)
            return
        exchange = self._exchange = Exchange(self, head)
        while self._came and not isinstance(self._came[0], Head | Answer):
            self._hand_on(self._came[0])
        self._site.take(exchange)

    # Writing

    def write(self, data: bytes) -> None:
        """Send it without waiting; what the client does not take is sent by a task."""
        sent = 0
        if self._fd >= 0 and not self._unsent:
            try:
                sent = os.write(self._fd, data)
            except BlockingIOError:
                pass
            except OSError:
                return  # its reader will find that out
        if sent < len(data):
            if not self._unsent:
                self._sent = trio.Event()
                self.spawn(self._send_rest)
            self._unsent += data[sent:]

    async def send(self, data: bytes) -> None:
        """Wait until it is sent."""
        self.write(data)
        while self._unsent:
            await self._sent.wait()

    async def _send_rest(self) -> None:
        try:
            while data := self._unsent:
                with trio.fail_after(WRITE_TIMEOUT_S):
                    await self._stream.send_all(data)
                self._unsent = self._unsent[len(data) :]
        except (*GONE, trio.TooSlowError):
            self.abort()
            return
        self._sent.set()
        if self._closing:
            self._scope.cancel()
        self._advance()
        self.go_on()

    def spawn(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        if self._nursery:
            self._nursery.start_soon(function, *args)

    # Ends

    def end(self, exchange: Exchange | SocketTalk) -> None:
        """It is answered, or never will be."""
        if exchange is not self._exchange:
            return
        self._exchange = None
        response = exchange.response
        if not (response.over and response.keep_alive and isinstance(exchange, Exchange) and exchange.whole):
            self._close()
            return
        self.idle_since = trio.current_time()
        self._advance()
        self.go_on()

    def _refuse(self, answer: Answer) -> None:
        """What was no request is answered as if it had been one."""
        response = Response(Head("GET", "1.1", b"", (), False, False, False))
        self.write(b"".join([response.take(message, _date()) for message in Reply().answer(answer)]))

    def _close(self) -> None:
        """Once all is sent."""
        self._closing = True
        if not self._unsent:
            self._scope.cancel()

    async def _linger(self) -> None:
        with trio.move_on_after(LINGER_S):
            if self._fd < 0:
                await self._stream.aclose()
                return
            await self._stream.send_eof()
            while await self._stream.receive_some(READ_BYTES):
                pass


_dates: tuple[int, bytes] = (0, b"")


def _date() -> bytes:
    """The header, made once a second."""
    global _dates
    now = int(time.time())
    if _dates[0] != now:
        _dates = now, b"date: %b\r\n" % formatdate(now, usegmt=True).encode()
    return _dates[1]
