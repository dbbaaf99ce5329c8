"""Requests for apps of other owners: this node's gateway hands them to the owner's node, which has them answered."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping
from typing import Any

from potluck import wire
from potluck.wire import Failure, FunctionSpec
from potluck.wire import visits as messages
from potluck.wire.common import Web
from potluck_node.clock import Clock
from potluck_node.core import events as ev
from potluck_node.core.web import OWNER_AWAY, Answer
from potluck_node.link import StreamLink
from potluck_node.transport.interface import Transport, TransportError
from potluck_node.web_visit import Said, Visit

log = logging.getLogger("potluck.gateway")

WEB_PROTOCOL = "/potluck/web/1"
# What an owner's node may have a client told, characters.
TEXT_MAX = 300

Start = Callable[..., None]


class Owners:
    """`forward` says whose node (by its peer id) has an app."""

    def __init__(self, forward: Mapping[str, str], transport: Transport, clock: Clock) -> None:
        self._forward, self._transport, self._clock = forward, transport, clock
        self._owners: dict[str, Owner] = {}

    def function(self, app: str, label: str) -> FunctionSpec | None:
        """What stands here for a function of another node."""
        return FunctionSpec(app, label, image="", python="", web=Web("asgi", label)) if app in self._forward else None

    def placer(self, app: str, proof: tuple[str, str], start: Start) -> Forwarded:
        """The way of one request to the node that has the app."""
        peer = self._forward[app]
        if peer not in self._owners:
            self._owners[peer] = Owner(peer, self._transport, self._clock)
        return Forwarded(self._owners[peer], proof, start)


class Forwarded:
    """One request's stand-in for the caller."""

    def __init__(self, owner: Owner, proof: tuple[str, str], start: Start) -> None:
        self._owner, self._proof, self._start = owner, proof, start
        self._number = 0
        self._visit: Visit | None = None

    def open(self, _call: str, _function: FunctionSpec, sink: Any) -> None:
        self._visit = sink

    def submit(self, event: Said) -> None:
        if isinstance(event, ev.InputAdded) and self._visit:
            self._number = self._owner.begin(self._visit, event.payload, self._proof, self._start)
        elif isinstance(event, ev.PieceAdded):
            self._owner.post(messages.VisitPiece(self._number, event.payload))
        elif isinstance(event, ev.ItemsTaken):
            self._owner.post(messages.VisitTook(self._number, event.items))
        elif isinstance(event, ev.CallCancelled):
            self._owner.leave(self._number)


class Owner:
    """One owner's node, asked by one stream that is opened with the first request."""

    def __init__(self, peer: str, transport: Transport, clock: Clock) -> None:
        self._peer, self._transport, self._clock = peer, transport, clock
        self._visits: dict[int, Visit] = {}
        self._numbers = itertools.count(1)
        self._link: StreamLink | None = None
        self._running = False
        # Until the stream is open.
        self._waiting: list[wire.Message] = []

    def begin(self, visit: Visit, payload: bytes, proof: tuple[str, str], start: Start) -> int:
        """Ask; returns its number."""
        number = next(self._numbers)
        self._visits[number] = visit
        self.post(messages.VisitBegun(number, payload, *proof))
        if not self._running:
            self._running = True
            start(self._run)
        return number

    def post(self, message: wire.Message) -> None:
        if self._link:
            self._link.post(message)
        else:
            self._waiting.append(message)

    def leave(self, number: int) -> None:
        """Nobody waits for the answer."""
        if self._visits.pop(number, None):
            self.post(messages.VisitLeft(number))

    async def _run(self) -> None:
        try:
            await self._converse()
        finally:
            self._running, self._link, self._waiting = False, None, []
            for number in list(self._visits):
                visit = self._visits.pop(number)
                if visit.begun:
                    visit.deliver(ev.Deliver(visit.call, 0, failure=Failure("execution", "Its owner's node is gone.")))
                else:
                    visit.refuse(OWNER_AWAY)

    async def _converse(self) -> None:
        try:
            stream = await self._transport.open(self._peer, WEB_PROTOCOL)
        except TransportError as error:
            log.warning("the node %s, for which the gateway answers, cannot be reached: %s", self._peer[-8:], error)
            return
        self._link = StreamLink(stream, messages.FromOwner, self._take, self._clock)
        for message in self._waiting:
            self._link.post(message)
        log.info("the gateway's stream to %s ended: %s", self._peer[-8:], await self._link.run())

    def _take(self, message: Any) -> None:
        visit = self._visits.get(message.number)
        if visit is None:
            return  # its client has gone
        call = visit.call
        if isinstance(message, messages.VisitStarted):
            visit.began(ev.Began(call, 0, ""))
        elif isinstance(message, messages.VisitItem):
            visit.item(ev.DeliverItem(call, 0, 0, message.payload))
        elif isinstance(message, messages.VisitTaken):
            visit.taken(ev.DeliverTaken(call, 0, message.bytes))
        else:
            del self._visits[message.number]
            if isinstance(message, messages.VisitEnded):
                visit.deliver(ev.Deliver(call, 0, payload=message.payload))
            else:
                visit.refuse(_answer(message))


def _answer(refused: messages.VisitRefused) -> Answer:
    """What a client is told, whatever the owner's node says."""
    status = refused.status if 400 <= refused.status <= 599 else 502
    return Answer(status, refused.text[:TEXT_MAX], max(0, min(refused.retry_after_s, 3600)))
