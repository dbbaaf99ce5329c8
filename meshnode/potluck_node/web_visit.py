"""One request on its way: from its client to a worker as an input and pieces, and back as items."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import trio

from potluck import wire
from potluck.errors import RemoteProtocolError
from potluck.wire import web
from potluck.wire.lease import InputLog
from potluck_node.caller import CallSink
from potluck_node.core import events as ev
from potluck_node.core.web import (
    BODY_BYTES_MAX,
    INTERNAL_ERROR,
    NO_WORKER,
    RAISED,
    TOO_LARGE,
    TOO_SLOW,
    Answer,
    Broken,
    Reply,
    body_bytes,
    failed,
)

if TYPE_CHECKING:
    from potluck_node.gateway_connection import Exchange

log = logging.getLogger("potluck.gateway")

# How long a request may wait until a worker begins it: an image may have to travel, and a model to load.
BEGIN_TIMEOUT_S = 300.0
# How long the next part of a body may take to come: a client that sends nothing holds a worker.
PART_TIMEOUT_S = 60.0
# After its client closed a WebSocket, how long an application may take to end its part, seconds.
CLOSE_TIMEOUT_S = 10.0
# What may wait here for a slow client, bytes: what the worker's window allows, and one WebSocket message beyond.
HELD_BYTES_MAX = web.AHEAD_BYTES_MAX + web.SOCKET_MESSAGE_BYTES_MAX + 1024

Message = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Heard = Callable[[str, str, InputLog], None]


# What a visit has to say.
Said = ev.InputAdded | ev.PieceAdded | ev.ItemsTaken | ev.InputsEnded | ev.CallCancelled


class Placer(Protocol):
    """Has calls run: this node's caller, or another node (`gateway_owners`)."""

    def open(self, call: str, function: wire.FunctionSpec, sink: CallSink) -> None: ...
    def submit(self, event: Said) -> None: ...


class ClientLeft(Exception):  # noqa: N818 - what clients do
    """Nobody waits for the answer."""


class Visit:
    """The sink of its call. `heard` takes what the worker prints. It is for `worker`, if that is named and lives;
    `on_begun` is told which one has begun it."""

    def __init__(
        self, call: str, function: wire.FunctionSpec, caller: Placer, heard: Heard, worker: str = "",
        on_begun: Callable[[str], None] = lambda worker: None,
    ) -> None:  # fmt: skip
        self._worker, self._on_begun = worker, on_begun
        self.call, self.function = call, function
        # Whether it is a WebSocket; and how that is closed when we end it.
        self.socket, self._code = False, INTERNAL_ERROR
        self._caller, self._heard = caller, heard
        self._items: deque[bytes] = deque()
        self._held = self._taken = 0
        self._allowed: int | None = None
        self._outcome: ev.Deliver | None = None
        self._begun = self._broken = False
        self._refused: Answer | None = None
        self._reply = Reply()
        self._since = math.inf
        # Of those that wait for a change.
        self._change: list[trio.Event] = []
        # Called at each change.
        self.woken: Callable[[], None] = _ignore

    def begin(self, request: web.HttpRequest | web.SocketRequest) -> None:
        """Have it answered."""
        self.request, self.socket = request, isinstance(request, web.SocketRequest)
        self._reply.socket = self.socket
        self._since = trio.current_time()
        self._caller.open(self.call, self.function, self)
        self._caller.submit(ev.InputAdded(self.call, 0, wire.encode(request), self._worker))
        self._caller.submit(ev.InputsEnded(self.call))

    async def serve(self, receive: Receive, send: Send) -> None:
        """Pass on what comes of it, and the answer. Returns when that is complete, or the client has gone."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pass_on, receive, nursery.cancel_scope)
                await self._answer(send)
                nursery.cancel_scope.cancel()
        finally:
            self.leave()

    def leave(self) -> None:
        """Nobody waits for the answer any more."""
        if self._outcome is None:
            self._outcome = ev.Deliver(self.call, 0)
            self._caller.submit(ev.CallCancelled(self.call, "the client left"))

    def expire(self, since: float) -> None:
        """Give up if it has waited for a worker for longer."""
        if self._since < since and not (self._begun or self._outcome):
            self.refuse(NO_WORKER)

    @property
    def begun(self) -> bool:
        """Whether a worker has it."""
        return self._begun

    def refuse(self, answer: Answer) -> None:
        """Answer it here."""
        self._refused = answer
        self._changes()

    # From the client

    async def _pass_on(self, receive: Receive, scope: trio.CancelScope) -> None:
        """Until the client has gone, or the answer is complete."""
        request = self.request
        try:
            if isinstance(request, web.SocketRequest):
                await self._pass_on_messages(receive)
            elif request.more:
                await self._pass_on_body(len(request.body), receive)
            while (await receive())["type"] != "http.disconnect":
                pass
        except ClientLeft:
            pass
        except BodyError as error:
            self.refuse(error.answer)
            return
        if not self._reply.over:
            # The last of an answer must not be cancelled: the connection goes on after it.
            scope.cancel()

    async def _pass_on_body(self, size: int, receive: Receive) -> None:
        while True:
            event = await next_part(receive)
            size += len(event["body"])
            if size > BODY_BYTES_MAX:
                raise BodyError(TOO_LARGE)
            await self._send_piece(web.BodyPiece(event["body"], event["more_body"]))
            if not event["more_body"]:
                return

    async def _pass_on_messages(self, receive: Receive) -> None:
        while True:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                await self._send_piece(web.SocketClosed(event.get("code") or 1005, event.get("reason") or ""))
                # The application may still tidy up; its part ends by itself, or is ended with the call.
                with trio.move_on_after(CLOSE_TIMEOUT_S):
                    while self._outcome is None:
                        await self._changed()
                raise ClientLeft
            if event["type"] == "websocket.receive" and event.get("text") is not None:
                await self._send_piece(web.SocketText(event["text"]))
            elif event["type"] == "websocket.receive":
                await self._send_piece(web.SocketBytes(event.get("bytes") or b""))

    async def _send_piece(self, piece: wire.Message) -> None:
        """Wait until the worker wants it."""
        payload = wire.encode(piece)
        while not self._has_room(len(payload)):
            await self._changed()
        self._taken += len(payload)
        self._caller.submit(ev.PieceAdded(self.call, 0, payload))

    def _has_room(self, size: int) -> bool:
        """One always has room, however large, when little is on its way."""
        if self._allowed is None:
            return False
        ahead = self._taken - self._allowed
        return ahead < web.TELL_BYTES or ahead + size <= web.AHEAD_BYTES_MAX

    # To the client

    async def _answer(self, send: Send) -> None:
        try:
            async for item in self._came():
                for message in self._reply.take(wire.decode(item, web.FromApp)):
                    await send(message)
        except (Broken, RemoteProtocolError) as error:
            self._broke(error)
        for message in self._rest():
            await send(message)

    def _broke(self, error: Exception) -> None:
        log.warning("%s/%s: a worker's answer makes no sense: %s", self.function.app, self.function.name, error)
        self._broken = True

    def _rest(self) -> Iterator[Message]:
        """What is left to say to a client whose worker has not said all."""
        if not self._reply.over:
            yield from self._reply.answer(self._answer_of_ours(), self._code)

    def short(self) -> list[Message]:
        """All of an answer that is the outcome alone."""
        payload = self._outcome.payload if self._outcome and not self._refused else b""
        said: list[Message] = []
        try:
            if payload:
                said = list(self._reply.take(wire.decode(payload, web.FromApp)))
        except (Broken, RemoteProtocolError) as error:
            self._broke(error)
            self._reply = Reply()
        return [*said, *self._rest()]

    async def _came(self) -> AsyncIterator[bytes]:
        """Items, then a short answer that is the outcome itself."""
        count = 0
        while not self._refused:
            while self._items:
                payload = self._items.popleft()
                yield payload
                count += 1
                self._held -= len(payload)
                self._caller.submit(ev.ItemsTaken(self.call, 0, count))
            if self._broken or (self._outcome and not self._items):
                break
            await self._changed()
        if not (self._broken or self._refused) and self._outcome and self._outcome.payload:
            yield self._outcome.payload

    def _answer_of_ours(self) -> Answer:
        if self._refused:
            return self._refused
        outcome = self._outcome
        if outcome and outcome.failure:
            self._note(outcome.failure)
            return failed(outcome.failure)
        if outcome and outcome.exception:
            return RAISED
        if self._broken or outcome:
            return failed(wire.Failure("execution", "the answer was no answer"))
        return NO_WORKER

    @property
    def streams(self) -> bool:
        """Whether its answer is more than the outcome."""
        return bool(self._items) or self._broken

    @property
    def over(self) -> bool:
        """Whether nothing more comes of it."""
        return self._outcome is not None or self._refused is not None

    def _note(self, failure: wire.Failure) -> None:
        """For whoever reads the app's logs: clients are told less."""
        text = f"potluck: a request failed: {failure.what} {failure.why} {failure.fix}".strip() + "\n"
        self._heard(self.function.app, self.function.name, InputLog(0, "gateway", 2, text.encode()))

    def stop(self, failure: wire.Failure, code: int = INTERNAL_ERROR) -> None:
        """The app, or this version of it, is no more."""
        if self._outcome is None:
            self._code = code
            self._caller.submit(ev.CallCancelled(self.call, failure.why))
            self.deliver(ev.Deliver(self.call, 0, failure=failure))

    async def _changed(self) -> None:
        event = trio.Event()
        self._change.append(event)
        await event.wait()

    def _changes(self) -> None:
        """Wake whoever waits."""
        waiting, self._change = self._change, []
        for event in waiting:
            event.set()
        self.woken()

    # The sink of its call

    def deliver(self, action: ev.Deliver) -> None:
        self._outcome = action
        self._changes()

    def item(self, action: ev.DeliverItem) -> None:
        self._begun = True
        self._held += len(action.payload)
        # The worker's own window is its business, and not to be trusted.
        self._broken = self._broken or self._held > HELD_BYTES_MAX
        if not self._broken:
            self._items.append(bytes(action.payload))
        self._changes()

    def began(self, action: ev.Began) -> None:
        self._on_begun(action.worker)
        self._begun = True
        self._changes()

    def taken(self, action: ev.DeliverTaken) -> None:
        if action.bytes >= (self._allowed or 0):
            self._allowed = action.bytes
        self._changes()

    def ended(self, action: ev.CallEnded) -> None:
        self._changes()

    def notice(self, action: ev.Notice) -> None:
        """There is nobody to tell."""

    def log(self, call: str, index: int, message: InputLog) -> None:
        self._heard(self.function.app, self.function.name, message)

    async def drained(self) -> None:
        """What waits here is bounded by windows instead."""


def _ignore() -> None:
    """A task waits instead."""


class Short:
    """A request that is whole. No task waits for its answer, if that is short. `done` is called at its end."""

    def __init__(self, visit: Visit, exchange: Exchange, done: Callable[[], None]) -> None:
        self._visit, self._exchange, self._done = visit, exchange, done

    def begin(self, request: web.HttpRequest) -> None:
        self._visit.woken, self._exchange.left = self._look, self._left
        self._visit.begin(request)

    def _look(self) -> None:
        visit = self._visit
        if visit.streams:
            visit.woken = _ignore
            self._exchange.spawn(self._serve)
        elif visit.over:
            self._end()
            self._exchange.answer(visit.short())

    async def _serve(self) -> None:
        try:
            await self._visit.serve(self._exchange.receive, self._exchange.send)
        finally:
            self._done()

    def _left(self) -> None:
        self._end()

    def _end(self) -> None:
        self._visit.woken = _ignore
        self._visit.leave()
        self._done()


class BodyError(Exception):
    """The body cannot be taken."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.answer = answer


async def next_part(receive: Receive) -> dict[str, Any]:
    """The next `http.request`. Raises `ClientLeft`, `BodyError`."""
    with trio.move_on_after(PART_TIMEOUT_S):
        event = await receive()
        if event["type"] != "http.request":
            raise ClientLeft
        return {"body": event.get("body", b""), "more_body": event.get("more_body", False)}
    raise BodyError(TOO_SLOW)


async def first_part(headers: web.Headers, receive: Receive) -> tuple[bytes, bool]:
    """The whole body when it is short, else nothing; and whether more follows. Raises `ClientLeft`, `BodyError`."""
    expected = body_bytes(headers)
    if expected is not None and expected > BODY_BYTES_MAX:
        raise BodyError(TOO_LARGE)
    if expected is None or expected > web.INLINE_BODY_BYTES_MAX:
        return b"", True
    parts = []
    while True:
        part = await next_part(receive)
        parts.append(part["body"])
        if not part["more_body"]:
            return b"".join(parts), False
