"""A worker that answers web requests: it makes the user's application once, then serves what the node sends it.

Each request is an `Exchange`. What is answered goes out as items, as far as the client takes them; a short answer is
the outcome alone. When the client has gone the application is told so, and after a while its request is cancelled.
"""

from __future__ import annotations

import _thread
import os
import sys
import time

from . import asking, current
from .codec import pack, unpack
from .failures import Refusal, exception_message, in_short, late
from .inbox import Inbox
from .jobs import PAUSE_S
from .output import Output
from .service import Service
from .window import Windows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from .codec import Message
    from .function import Function

    class Site(Protocol):
        """One kind of application."""

        def start(self) -> None:
            """Make it ready; raises what user code raises."""

        def exchange(self, worker: WebWorker, number: int, request: Message) -> Exchange:
            """Its kind of them."""
            ...

        def answer(self, exchange: Exchange) -> None:
            """Begin to answer; returns at once."""

        def stop(self) -> None:
            """The worker ends."""


# These repeat `wire.web`; a test compares them.
AHEAD_BYTES_MAX = 1 << 20
# What is put into one piece: with its frame it stays below what travels apart (`memory.INLINE_BYTES_MAX`), bytes.
BODY_BYTES_MAX = 60 << 10
TELL_BYTES = 256 << 10
# After the client has gone the application may tidy up for so long, seconds; the node kills a worker after 5.
GRACE_S = 2.0


def serve(socket: int, function: Function, spec: dict[str, Any]) -> None:
    """Serve the node on `socket`; returns when no more requests come."""
    WebWorker(socket, function, spec).serve()


def make_site(function: Function, spec: dict[str, Any]) -> Site:
    kind, _, method, docs, _, port, startup_us, attribute = spec["web"][:8]
    service = function if isinstance(function, Service) else None

    def raw() -> Any:
        """The function, or the method of an object that has entered."""
        return service.bound(attribute) if service else function

    if kind == "wsgi":
        from .web_wsgi import WsgiSite

        return WsgiSite(lambda: raw()())
    if kind == "server":
        from .web_server import ServerSite

        return ServerSite(lambda: raw()(), port, startup_us / 1e6)
    from .web_asgi import AsgiSite, fastapi_app

    site = AsgiSite(lambda: fastapi_app(raw(), spec["name"], method, docs) if kind == "fastapi" else raw()())
    if service is not None:
        service.finish = site.finish
    return site


class Exchange:
    """One request, as `wire.web.HttpRequest` or `SocketRequest`. `feed` and `end` are called by the node's side, with
    None when the client has gone; a site replaces them. All else may be called from any thread, by one at a time."""

    def __init__(self, worker: WebWorker, number: int, request: Message) -> None:
        self._worker, self.number, self.request = worker, number, request
        # As in `current`.
        self.place: tuple[int, str, int] = (number, "", 0)
        self.gone = False
        self._items = self._taken = self._told = 0
        self._asked = False

    def feed(self, piece: Message | None) -> None:
        """More of the request; None when the client has gone."""
        raise NotImplementedError

    def begin(self, start: Any) -> None:
        """Answer in a thread of its own; what `start` raises is the outcome."""
        _thread.start_new_thread(self._run, (start,))

    def _run(self, start: Any) -> None:
        current.running.set(self.place)
        try:
            start(self)
        except BaseException as error:  # noqa: BLE001 - whatever user code raises is an outcome
            self.fail(error)

    def want(self) -> None:
        """The application reads: let the client's pieces come."""
        if not self._asked:
            self._asked = True
            self._worker.output.send(["PiecesTaken", self.number, 0])

    def took(self, size: int) -> None:
        """A piece of so many bytes was read."""
        self._taken += size
        if self._taken - self._told >= TELL_BYTES:
            self._told = self._taken
            self._worker.output.send(["PiecesTaken", self.number, self._taken])

    def full(self, size: int) -> bool:
        """Whether the client is so slow that an item has to wait."""
        return self._worker.windows.full(self.number, size) and not self.gone

    def emit(self, item: Message) -> None:
        """Send an item, waiting for a slow client."""
        payload = pack(item)
        while self.full(len(payload)):
            time.sleep(PAUSE_S)
        self.push(payload)

    def push(self, payload: bytes) -> None:
        """Send a packed item now."""
        if not self.gone:
            self._worker.windows.send(self.number, len(payload))
        self._worker.output.send(["InputYielded", self.number, self._items, payload])
        self._items += 1

    def finish(self, last: Message | None = None) -> None:
        """All is answered; `last` is a short answer as a whole."""
        self._worker.tell(self.number, "InputSucceeded", pack(last) if last else b"")

    def fail(self, error: BaseException) -> None:
        """It cannot be answered, or no further."""
        if isinstance(error, Refusal):
            self._worker.tell(self.number, "InputRefused", error.message)
            return
        if not self.gone:
            sys.excepthook(type(error), error, error.__traceback__)
        self._worker.tell(self.number, "InputRaised", exception_message(error, True))


class WebWorker:
    """`windows` bound what is on its way to each client."""

    def __init__(self, socket: int, function: Function, spec: dict[str, Any]) -> None:
        self.output = Output(socket)
        self._asking = asking.current = asking.Asking(self.output)
        self._inbox = Inbox(socket, self._asking.told)
        self._asking.listen = self._inbox.listen
        self.windows = Windows(lambda: time.sleep(PAUSE_S), AHEAD_BYTES_MAX)
        self._function, self._site = function, make_site(function, spec)
        self._started, self._starting = False, _thread.allocate_lock()
        self._exchanges: dict[int, Exchange] = {}
        self._cpu_us, self._lock = 0, _thread.allocate_lock()
        limit_us = spec["startup_timeout_us"] or spec["timeout_us"]
        self._limit_s = limit_us / 1e6

    def serve(self) -> None:
        """Returns when the node says so, or closes the socket."""
        _thread.start_new_thread(self._get_ready, ())
        while self._read():
            pass
        self.output.flush()

    def _get_ready(self) -> None:
        """Be ready once the application is, or its first request would tell why it is not, or its time is over."""
        said = _thread.allocate_lock()
        done = _thread.allocate_lock()
        done.acquire()
        _thread.start_new_thread(self._say_in_time, (done, said))
        trouble = ""
        try:
            self._start()
        except BaseException as error:  # noqa: BLE001 - raised again by the request that tries again
            trouble = in_short(error)
        done.release()
        if said.acquire(blocking=False):
            self.output.send(["WorkerReady", trouble])

    def _say_in_time(self, done: _thread.LockType, said: _thread.LockType) -> None:
        if not done.acquire(timeout=self._limit_s) and said.acquire(blocking=False):
            self.output.send(["WorkerReady", late(self._limit_s)])

    def _start(self) -> None:
        with self._starting:
            if not self._started:
                self._site.start()
                self._started = True

    def _read(self) -> bool:
        message: Any = self._inbox.get()
        match message:
            case ["RunInput", int(number), payload, bool(as_data), str(call), int(index), *_]:
                self._asking.as_data = bool(as_data)
                self._begin((number, call, index), payload)
            case ["InputPiece", int(number), payload, *_]:
                self._feed(number, payload)
            case ["ItemsTaken", int(number), int(items), *_]:
                self.windows.taken(number, items)
            case ["StopInput", int(number), *_]:
                if exchange := self._exchanges.get(number):
                    exchange.gone = True
                    exchange.feed(None)
            case ["StopWorker", *_]:
                self._site.stop()
                if isinstance(self._function, Service):
                    self._function.leave()
                return False
            case None:
                self.output.flush()
                os._exit(0)
            case message:
                raise ValueError(f"unexpected message {message!r:.100}")
        return True

    def _begin(self, place: tuple[int, str, int], payload: bytes) -> None:
        request: Any = unpack(bytes(payload))
        exchange = self._exchanges[place[0]] = self._site.exchange(self, place[0], request)
        exchange.place = place
        current.running.set(place)
        if self._started:
            self._site.answer(exchange)
        else:
            exchange.begin(self._start_then_answer)

    def _start_then_answer(self, exchange: Exchange) -> None:
        self._start()
        self._site.answer(exchange)

    def _feed(self, number: int, payload: bytes) -> None:
        exchange = self._exchanges.get(number)
        if exchange and not exchange.gone:
            piece: Any = unpack(bytes(payload))
            exchange.feed([*piece, len(payload)])

    def tell(self, number: int, tag: str, outcome: bytes | Message) -> None:
        """The outcome of a request, once."""
        with self._lock:
            if self._exchanges.pop(number, None) is None:
                return
            now_us = _cpu_us()
            spent_us, self._cpu_us = now_us - self._cpu_us, now_us
        self.windows.end(number)
        self.output.send([tag, number, outcome, spent_us])


def _cpu_us() -> int:
    """As `worker._cpu_us`, without what children take that are not waited for."""
    return time.process_time_ns() // 1000
