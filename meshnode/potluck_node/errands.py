"""Passes errands on: from clients that wait to the workers of calls that take them. In memory: a restart ends both."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NoReturn

import trio

from potluck.errors import AlreadyExistsError, InvalidError, NotFoundError, RefusedError
from potluck.wire import errands as messages
from potluck.wire.state import Yes
from potluck_node.clock import Clock
from potluck_node.state.work import Asker


@dataclass
class _Open:
    """An errand that a client waits for."""

    payload: bytes
    secret: bool
    done: trio.Event = field(default_factory=trio.Event)
    report: bytes | None = None
    refused: bool = False


@dataclass
class _Served:
    facts: messages.ServiceFacts
    token: str
    # The peer on which its worker is.
    peer: str = ""
    # Who attends: the lease of the worker.
    attendant: str = ""
    trusted: bool = False
    waiting: deque[int] = field(default_factory=deque)
    open: dict[int, _Open] = field(default_factory=dict)
    news: trio.Event = field(default_factory=trio.Event)
    ended: bool = False

    def wake(self) -> None:
        self.news.set()
        self.news = trio.Event()


class Errands:
    """`lost` is told of a call whose worker is gone."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._served: dict[str, _Served] = {}
        self._tokens: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self.lost: Callable[[str], None] = lambda call: None
        # Has an image, of this peer, and keeps it so long.
        self.keep: Callable[[str, str, int], Awaitable[None]] = _nowhere

    # Calls that begin and end

    def check(self, app: str, service: messages.Service) -> None:
        """Raises `AlreadyExistsError` for a name that is taken, `InvalidError`, or `RefusedError` for one too many."""
        check_tags(service.tags)
        if not service.token or service.token in self._tokens:
            raise InvalidError("A call that takes errands needs a token of its own.")
        if len(self._served) >= messages.SERVICES_MAX:
            raise RefusedError(f"{messages.SERVICES_MAX} sandboxes run already.", fix="End some.")
        for each in self._served.values():
            if service.name and (each.facts.app, each.facts.name) == (app, service.name):
                raise AlreadyExistsError(
                    f"The app {app} has a sandbox named {service.name}.", fix="End it, or give another name."
                )

    def open(self, call: str, app: str, service: messages.Service) -> None:
        """A call takes errands until it is closed."""
        facts = messages.ServiceFacts(call, app, service.name, service.tags, self._clock.now_us())
        self._served[call] = _Served(facts, service.token)
        self._tokens[service.token] = call

    def close(self, call: str) -> None:
        """The call has ended: whoever waits for it is told."""
        served = self._served.pop(call, None)
        if served is None:
            return
        del self._tokens[served.token]
        served.ended = True
        for errand in served.open.values():
            errand.done.set()
        served.wake()

    def left(self, asker: str) -> None:
        """Whoever had this name is gone, and what it ran with it."""
        for call in [call for call, served in self._served.items() if served.attendant == asker]:
            self.lost(call)

    # Requests

    async def ask(
        self, request: messages.ErrandRequest, asker: Asker
    ) -> messages.Errand | messages.Reported | messages.Services | Yes:
        """Raises `potluck.errors.Error`."""
        match request:
            case messages.Begin(token):
                self._begin(token, asker)
            case messages.Attend(token):
                return await self._attend(self._of(token, asker))
            case messages.Report(token, number, payload):
                self._report(self._of(token, asker), number, payload)
            case messages.Send():
                _check_owner(asker)
                return messages.Reported(await self._send(request))
            case messages.ListServices(app, tags):
                _check_owner(asker)
                return messages.Services(self._list(app, tags))
            case messages.SetTags(call, tags):
                _check_owner(asker)
                self._tag(call, tags)
            case messages.KeepImage(call, image, for_us):
                _check_owner(asker)
                await self.keep(image, self._find(call).peer, for_us)
        return Yes()

    def _begin(self, token: str, asker: Asker) -> None:
        served = self._served.get(self._tokens.get(token, ""))
        if served is None or served.attendant:
            _refuse_again()
        served.attendant, served.trusted, served.peer = asker.name, asker.trusted, asker.peer

    def _of(self, token: str, asker: Asker) -> _Served:
        served = self._served.get(self._tokens.get(token, ""))
        if served is None or served.attendant != asker.name:
            _refuse_again()
        return served

    async def _attend(self, served: _Served) -> messages.Errand:
        while True:
            while not served.waiting:
                if served.ended:
                    _refuse_again()
                await served.news.wait()
            number = served.waiting.popleft()
            errand = served.open[number]
            if served.trusted or not errand.secret:
                return messages.Errand(number, errand.payload)
            errand.refused = True
            errand.done.set()

    def _report(self, served: _Served, number: int, payload: bytes) -> None:
        if len(payload) > messages.ERRAND_BYTES_MAX:
            raise InvalidError(
                "A report is too large.", why=f"at most {messages.ERRAND_BYTES_MAX >> 20} MiB are passed"
            )
        # Whoever sent it may have left.
        if errand := served.open.get(number):
            errand.report = payload
            errand.done.set()

    async def _send(self, request: messages.Send) -> bytes:
        served = self._find(request.call)
        if len(served.open) >= messages.ERRANDS_MAX:
            raise RefusedError(f"{messages.ERRANDS_MAX} requests to this sandbox wait already.", fix="Wait for some.")
        if len(request.payload) > messages.ERRAND_BYTES_MAX:
            raise InvalidError("A request to a sandbox is too large.", fix="Write large files in pieces.")
        number = next(self._numbers)
        errand = served.open[number] = _Open(request.payload, request.secret)
        served.waiting.append(number)
        served.wake()
        try:
            await errand.done.wait()
        finally:
            del served.open[number]
            if number in served.waiting:
                served.waiting.remove(number)
        return _reported(errand, request.call)

    def _find(self, call: str) -> _Served:
        return self._served.get(call) or _say_ended(call)

    def _list(self, app: str, tags: tuple[tuple[str, str], ...]) -> tuple[messages.ServiceFacts, ...]:
        found = [each.facts for each in self._served.values() if app in ("", each.facts.app)]
        return tuple(facts for facts in reversed(found) if set(tags) <= set(facts.tags))

    def _tag(self, call: str, tags: tuple[tuple[str, str], ...]) -> None:
        check_tags(tags)
        served = self._find(call)
        facts = served.facts
        served.facts = messages.ServiceFacts(facts.call, facts.app, facts.name, tags, facts.started_us)


def _reported(errand: _Open, call: str) -> bytes:
    if errand.refused:
        raise RefusedError(
            "Secrets are not sent to this sandbox.",
            why="the peer that runs it is not trusted by this node",
            fix="Add it to the setting `trust`.",
        )
    if errand.report is None:
        _say_ended(call)
    return errand.report


def check_tags(tags: tuple[tuple[str, str], ...]) -> None:
    """Raises `InvalidError` for too many, or too long ones."""
    longest = max((len(text) for pair in tags for text in pair), default=0)
    if len(tags) > messages.TAGS_MAX or longest > messages.TAG_CHARS_MAX:
        raise InvalidError(
            "These tags are too many, or too long.",
            fix=f"Give at most {messages.TAGS_MAX}, of at most {messages.TAG_CHARS_MAX} characters.",
        )


def _check_owner(asker: Asker) -> None:
    if asker.app and not asker.trusted:
        raise RefusedError(
            "Sandboxes cannot be used here.",
            why="the peer that runs this function is not trusted by its caller's node",
            fix="Add it to the setting `trust` there, or use them in the program.",
        )


async def _nowhere(image: str, peer: str, for_us: int) -> None:
    raise InvalidError("This node keeps no images.")


def _refuse_again() -> NoReturn:
    raise RefusedError("This sandbox has ended.", why="what ran in it is lost, and it does not run twice")


def _say_ended(call: str) -> NoReturn:
    raise NotFoundError("This sandbox has ended.", why=f"the call {call} takes no requests")
