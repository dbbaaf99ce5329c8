"""One WebSocket of the gateway (RFC 6455), by wsproto. Without compression: a small message could become a huge one."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from potluck.wire.web import SOCKET_MESSAGE_BYTES_MAX
from potluck_node.core.http import Head, Response
from potluck_node.core.web import Answer, Broken, Reply

if TYPE_CHECKING:
    from potluck_node.gateway_connection import Connection

log = logging.getLogger("potluck.gateway")

# A WebSocket whose client does not answer this often is dead, seconds.
PING_S = 20.0
# RFC 6455, section 7.4.1.
TOO_BIG, GONE = 1009, 1006

REFUSED = Answer(403, "The application takes no WebSocket here.")
NO_HANDSHAKE = Answer(400, "This is no handshake of a WebSocket.")

Message = dict[str, Any]


class SocketTalk:
    """As `Exchange`, for a WebSocket. `wrong` if its client did not ask for one as it should have."""

    whole = False

    def __init__(self, connection: Connection, head: Head) -> None:
        self.head, self.scheme, self.client = head, connection.scheme, connection.client
        # Where it is refused, with HTTP.
        self.response = Response(head)
        self.wrong: Answer | None = None
        self.subprotocols: tuple[str, ...] = ()
        self.held = 0
        self._connection = connection
        self._protocol = WSConnection(ConnectionType.SERVER)
        self._early = b""
        self._open = self._heard = self._closed = False
        self._parts: list[str | bytes] = []
        self._size = 0
        self._messages: deque[Message] = deque()
        self._change = trio.Event()
        self._shake_hands()

    def _shake_hands(self) -> None:
        headers = [(name, value) for name, value in self.head.headers]
        try:
            self._protocol.initiate_upgrade_connection(headers, self.head.target)
            for event in self._protocol.events():
                if isinstance(event, Request):
                    self.subprotocols = tuple(event.subprotocols)
        except (LocalProtocolError, RemoteProtocolError, ValueError):
            self.wrong = NO_HANDSHAKE

    # By whoever answers

    def answer(self, messages: Iterable[Message]) -> None:
        """Refuse it, with HTTP."""
        data = b"".join([self.response.take(message, b"") for message in messages])
        self._connection.write(data)
        self._connection.end(self)

    def spawn(self, serve: Callable[[], Awaitable[None]]) -> None:
        """Answer in a task, by `receive` and `send`; it is over when that returns."""
        self._connection.spawn(self._run, serve)

    async def _run(self, serve: Callable[[], Awaitable[None]]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._ping)
                await serve()
                nursery.cancel_scope.cancel()
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("a client has gone")
        except* Exception:
            log.exception("a WebSocket of the gateway failed")
        finally:
            self._connection.end(self)

    async def receive(self) -> Message:
        """The next message; or, again and again, that the client has gone."""
        while not self._messages:
            self._change = trio.Event()
            await self._change.wait()
        message = self._messages[0]
        if message["type"] == "websocket.receive":
            self._messages.popleft()
            self.held -= len(message.get("text") or message.get("bytes") or b"")
            self._connection.go_on()
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        try:
            if kind == "websocket.accept":
                extra = [(name, value) for name, value in message["headers"] if not name.startswith(b"sec-websocket")]
                await self._say(AcceptConnection(message["subprotocol"], extra_headers=extra))
                self._open = True
                early, self._early = self._early, b""
                self.held -= len(early)
                self.feed(early)
                self._connection.go_on()
            elif kind == "websocket.close" and not self._open:
                for each in Reply().answer(REFUSED):
                    await self.send(each)
            elif kind == "websocket.close":
                await self._close(message["code"], message["reason"])
            elif kind == "websocket.send":
                data = message.get("text")
                await self._say(BytesMessage(message["bytes"]) if data is None else TextMessage(data))
            elif data := self.response.take(message, b""):
                await self._connection.send(data)
        except LocalProtocolError as error:
            # Nothing may be said after a close, and no subprotocol chosen that was not offered.
            if not self._closed:
                raise Broken(str(error)) from None

    async def _close(self, code: int, reason: str) -> None:
        if not self._closed:
            self._closed = True
            await self._say(CloseConnection(code, reason))

    async def _say(self, event: Event) -> None:
        await self._connection.send(self._protocol.send(event))

    async def _ping(self) -> None:
        self._heard = True
        while True:
            await trio.sleep(PING_S)
            if not self._open or self._closed:
                continue
            if not self._heard and not self.held:
                self._connection.abort()
                return
            self._heard = False
            await self._say(Ping())

    # By the connection

    def feed(self, data: bytes) -> None:
        if not self._open:
            self._early += data
            self.held += len(data)
            return
        self._heard = True
        try:
            self._protocol.receive_data(data)
            for event in self._protocol.events():
                self._take(event)
        except RemoteProtocolError as error:
            hint = error.event_hint
            self._end(hint.code if isinstance(hint, CloseConnection) else GONE, "", hint)

    def _take(self, event: Event) -> None:
        if isinstance(event, Ping):
            self._connection.write(self._protocol.send(event.response()))
        elif isinstance(event, CloseConnection):
            self._end(event.code, event.reason or "", event.response())
        elif isinstance(event, TextMessage | BytesMessage) and not self._closed:
            self._parts.append(event.data if isinstance(event, TextMessage) else bytes(event.data))
            self._size += len(event.data.encode() if isinstance(event, TextMessage) else event.data)
            if self._size > SOCKET_MESSAGE_BYTES_MAX:
                self._end(TOO_BIG, "", CloseConnection(TOO_BIG))
            elif event.message_finished:
                self._finish_message(isinstance(event, TextMessage))

    def _finish_message(self, text: bool) -> None:
        data: Any = ("" if text else b"").join(self._parts)  # type: ignore[arg-type]
        self._parts, self._size = [], 0
        self.held += len(data)
        self._put({"type": "websocket.receive", "text" if text else "bytes": data})

    def _end(self, code: int, reason: str, last: Event | None) -> None:
        """The client closes, or must be left."""
        if last and not self._closed:
            self._connection.write(self._protocol.send(last))
        self._closed = True
        self._put({"type": "websocket.disconnect", "code": code, "reason": reason})

    def _put(self, message: Message) -> None:
        self._messages.append(message)
        self._change.set()

    def leave(self) -> None:
        """The client has gone."""
        self._closed = True
        self._put({"type": "websocket.disconnect", "code": GONE, "reason": ""})
