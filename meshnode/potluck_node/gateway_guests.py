"""Requests that the gateways of other nodes took, for apps of this node: those that its owner named are let in."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import trio

from potluck import wire
from potluck.errors import RemoteProtocolError
from potluck.wire import Failure, FunctionSpec, visits, web
from potluck.wire.lease import InputLog
from potluck_node.caller import Caller
from potluck_node.clock import Clock
from potluck_node.core import events as ev
from potluck_node.core.web import RAISED, Answer, failed
from potluck_node.link import StreamLink
from potluck_node.transport.interface import Stream
from potluck_node.web_visit import HELD_BYTES_MAX, Heard

log = logging.getLogger("potluck.gateway")

Request = web.HttpRequest | web.SocketRequest


class Host(Protocol):
    """This node's gateway."""

    def admit(self, peer: str, request: Request, key: str, secret: str) -> FunctionSpec | Answer:
        """The function that is to answer, or why none does."""
        ...

    def welcome(self, guest: Guest, headers: web.Headers) -> Answer | None:
        """Count it, and have it begin; or why not."""
        ...

    def farewell(self, guest: Guest) -> None:
        """It is over."""
        ...


class Guests:
    """Serves `gateway_owners.WEB_PROTOCOL`."""

    def __init__(self, host: Host, caller: Caller, clock: Clock, heard: Callable[[], Heard]) -> None:
        self._host, self._caller, self._clock, self._heard = host, caller, clock, heard

    async def on_stream(self, stream: Stream) -> None:
        """Answer one gateway, until it has gone."""
        guests: dict[int, Guest] = {}

        def take(message: Any) -> None:
            if isinstance(message, visits.VisitBegun):
                if message.number in guests or len(guests) >= visits.VISITS_MAX:
                    raise RemoteProtocolError("A gateway sends more requests than it may, or one twice.")
                self._begin(message, stream.peer, guests, link.post)
            elif guest := guests.get(message.number):
                guest.take(message)

        link = StreamLink(stream, visits.FromGateway, take, self._clock)
        try:
            log.info("the gateway of %s ended its stream: %s", stream.peer[-8:], await link.run())
        finally:
            for guest in list(guests.values()):
                guest.leave()

    def _begin(
        self, message: visits.VisitBegun, peer: str, guests: dict[int, Guest], post: Callable[[wire.Message], None]
    ) -> None:
        request = wire.decode(message.payload, Request)
        found = self._host.admit(peer, request, message.key, message.secret)
        if isinstance(found, FunctionSpec):
            guest = Guest(message.number, found, request, self._caller, self._heard(), post)
            guest.over = lambda: _forget(guests, message.number, guest, self._host)
            guests[message.number] = guest
            refused = self._host.welcome(guest, request.headers)
            if refused is None:
                return
            del guests[message.number]
            found = refused
        post(visits.VisitRefused(message.number, found.status, found.text, found.retry_after_s))


def _forget(guests: dict[int, Guest], number: int, guest: Guest, host: Host) -> None:
    if guests.pop(number, None):
        host.farewell(guest)


class Guest:
    """The sink of the call of one request. `over` is called at its end."""

    def __init__(
        self, number: int, function: FunctionSpec, request: Request, caller: Caller, heard: Heard,
        post: Callable[[wire.Message], None],
    ) -> None:  # fmt: skip
        self.function, self.socket = function, isinstance(request, web.SocketRequest)
        self.over: Callable[[], None] = lambda: None
        self.call = ""
        self.on_begun: Callable[[str], None] = lambda worker: None
        self._number, self._request, self._caller, self._heard, self._post = number, request, caller, heard, post
        # Of items that the client has not taken, the sizes.
        self._sizes: deque[int] = deque()
        self._held = self._taken = self._sent = self._allowed = 0
        self._ended = False

    def begin(self, call: str, worker: str, on_begun: Callable[[str], None]) -> None:
        """Have it answered, by this worker if it lives."""
        self.call, self.on_begun = call, on_begun
        self._caller.open(call, self.function, self)
        self._caller.submit(ev.InputAdded(call, 0, wire.encode(self._request), worker))
        self._caller.submit(ev.InputsEnded(call))

    # From the gateway

    def take(self, message: visits.VisitPiece | visits.VisitTook | visits.VisitLeft) -> None:
        """Raises `RemoteProtocolError` for more than the worker wants."""
        if isinstance(message, visits.VisitPiece):
            self._sent += len(message.payload)
            if self._sent - self._allowed > HELD_BYTES_MAX:
                raise RemoteProtocolError("A gateway sends more of a body than was asked for.")
            self._caller.submit(ev.PieceAdded(self.call, 0, message.payload))
        elif isinstance(message, visits.VisitTook):
            while self._taken < message.items and self._sizes:
                self._taken += 1
                self._held -= self._sizes.popleft()
            self._caller.submit(ev.ItemsTaken(self.call, 0, self._taken))
        else:
            self.leave()

    def leave(self) -> None:
        """Nobody waits for the answer any more."""
        if not self._ended:
            self._end()
            self._caller.submit(ev.CallCancelled(self.call, "the client left"))

    def stop(self, failure: Failure, _code: int = 0) -> None:
        """The app, or this version of it, is no more."""
        if not self._ended:
            self._refuse(failed(failure))
            self._caller.submit(ev.CallCancelled(self.call, failure.why))

    def expire(self, since: float) -> None:
        """The gateway that took it looks at the time."""

    def _refuse(self, answer: Answer) -> None:
        self._post(visits.VisitRefused(self._number, answer.status, answer.text, answer.retry_after_s))
        self._end()

    def _end(self) -> None:
        self._ended = True
        self.over()

    # The sink of its call

    def deliver(self, action: ev.Deliver) -> None:
        if self._ended:
            return
        if action.failure:
            text = f"potluck: a request failed: {action.failure.what} {action.failure.why}".strip() + "\n"
            self._heard(self.function.app, self.function.name, InputLog(0, "gateway", 2, text.encode()))
            self._refuse(failed(action.failure))
        elif action.exception:
            self._refuse(RAISED)
        else:
            self._post(visits.VisitEnded(self._number, bytes(action.payload or b"")))
            self._end()

    def item(self, action: ev.DeliverItem) -> None:
        self._sizes.append(len(action.payload))
        self._held += len(action.payload)
        if self._ended:
            return
        if self._held > HELD_BYTES_MAX:
            # The worker's own window is its business, and not to be trusted.
            self.stop(Failure("execution", "A worker answers more than is taken."))
        else:
            self._post(visits.VisitItem(self._number, bytes(action.payload)))

    def began(self, action: ev.Began) -> None:
        self.on_begun(action.worker)
        self._post(visits.VisitStarted(self._number))

    def taken(self, action: ev.DeliverTaken) -> None:
        self._allowed = max(self._allowed, action.bytes)
        self._post(visits.VisitTaken(self._number, action.bytes))

    def ended(self, action: ev.CallEnded) -> None:
        """Its outcome came before."""

    def notice(self, action: ev.Notice) -> None:
        """There is nobody to tell."""

    def log(self, call: str, index: int, message: InputLog) -> None:
        self._heard(self.function.app, self.function.name, message)

    async def drained(self) -> None:
        """What waits is bounded by windows instead."""
        await trio.lowlevel.checkpoint()
