"""The gateway: an HTTP server whose requests are answered by functions on the mesh.

`gateway_connection` speaks the protocol, one connection at a time; here are the limits, the routes, and the end of it.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import socket
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

import trio

from potluck.errors import InputCancellation, InvalidError
from potluck.wire import Failure, FunctionSpec, function_id, web
from potluck_node import web_visit
from potluck_node.apps import ClientApps
from potluck_node.caller import Caller
from potluck_node.core.web import (
    NO_HOST,
    NO_TOKEN,
    NOT_FOUND,
    NOT_GRANTED,
    ODD_REQUEST,
    RESTART,
    Answer,
    Doors,
    Reply,
    Route,
    Sessions,
    names_us,
    odd,
    passed_on,
    path_of,
    proof,
    route,
    session,
)
from potluck_node.gateway_connection import Connection, Exchange
from potluck_node.gateway_guests import Guest, Request
from potluck_node.gateway_owners import Owners
from potluck_node.gateway_socket import SocketTalk
from potluck_node.web_visit import BodyError, ClientLeft, Heard, Placer, Short, Visit, first_part

if TYPE_CHECKING:
    from trio_typing import TaskStatus

    from potluck_node.core.http import Head

log = logging.getLogger("potluck.gateway")

# Connections at once: each costs a descriptor and some 50 KiB; half of what the node may have.
CONNECTIONS_MAX = 4096
# A connection without a request, or with the half of one, is closed after this, seconds.
IDLE_S = 20.0
# How often time limits are looked at, while the shortest of them passes.
LOOKS = 8
# When no more descriptors are to be had, seconds until the next try.
ACCEPT_PAUSE_S = 0.1
# Under these names every machine means itself.
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


class Endpoints(Protocol):
    """The functions that answer."""

    def endpoint(self, app: str, label: str) -> FunctionSpec | None: ...


class Binding(Protocol):
    """The settings of the gateway (`config.Settings`)."""

    @property
    def gateway(self) -> str: ...
    @property
    def gateway_hosts(self) -> tuple[str, ...]: ...
    @property
    def gateway_cert(self) -> str: ...
    @property
    def gateway_key(self) -> str: ...
    @property
    def gateways(self) -> Mapping[str, tuple[str, ...]]: ...


class Gateway:
    """Listens from the first `base` on. `admits` takes the key and the secret of a client."""

    def __init__(self, settings: Binding, default: str, caller: Caller, admits: Callable[[str, str], bool]) -> None:
        self._settings, self._default, self._caller, self._admits = settings, default, caller, admits
        self.endpoints: Endpoints | None = None
        self.heard: Heard = lambda app, function, message: None
        # As a client of the apps: its calls end with their app.
        self.apps = ClientApps(os.getpid())
        self._doors, self._sessions, self._numbers = Doors(), Sessions(), itertools.count(1)
        self._visits: dict[str, Visit | Guest] = {}
        # Apps that other nodes have.
        self.owners: Owners | None = None
        self._connections: set[Connection] = set()
        self._hosts: tuple[str, ...] = ()
        self._url = ""
        self._nursery: trio.Nursery | None = None
        self._opening = trio.Lock()

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await self._end_what_waits()

    @property
    def busy(self) -> bool:
        return bool(self._visits)

    async def base(self) -> str:
        """Where it is reached, "" when it is turned off. Raises `InvalidError` when it cannot listen there."""
        async with self._opening:
            if not self._url and self._settings.gateway != "none":
                assert self._nursery, "the gateway is not being served"
                secure = _secure(self._settings.gateway_cert, self._settings.gateway_key)
                listener, scheme = self._listen(), "https" if secure else "http"
                host, port = listener.socket.getsockname()[:2]
                shown = f"[{host}]" if ":" in host else host
                if host in ("0.0.0.0", "::"):
                    shown = (self._settings.gateway_hosts or (socket.gethostname(),))[0]
                self._hosts = (*LOCAL_NAMES, shown.lower(), *(each.lower() for each in self._settings.gateway_hosts))
                self._nursery.start_soon(self._accept_all, listener, secure)
                self._url = f"{scheme}://{shown}:{port}"
                log.info("the gateway answers at %s", self._url)
        return self._url

    def _listen(self) -> trio.SocketListener:
        where = self._settings.gateway
        host, _, port = where.rpartition(":")
        try:
            return _bound(host, int(port))
        except (OSError, ValueError) as error:
            if where == self._default and getattr(error, "errno", 0) == errno.EADDRINUSE:
                return _bound(host, 0)
            raise InvalidError(
                f"The gateway cannot listen on {where}.",
                why=str(error),
                fix='Set `gateway` to another address and port of this machine, or to "none".',
            ) from None

    async def _accept_all(self, listener: trio.SocketListener, secure: ssl.SSLContext | None) -> None:
        assert self._nursery
        while True:
            try:
                accepted: Any = await listener.accept()
            except OSError as error:
                log.warning("the gateway cannot accept a connection: %s", error)
                await trio.sleep(ACCEPT_PAUSE_S)
                continue
            if len(self._connections) >= CONNECTIONS_MAX:
                await trio.aclose_forcefully(accepted)
                continue
            self._nursery.start_soon(self._connection, accepted, secure)

    async def _connection(self, stream: Any, secure: ssl.SSLContext | None) -> None:
        client = _address(stream)
        if secure:
            stream = trio.SSLStream(stream, secure, server_side=True, https_compatible=True)
        connection = Connection(stream, self, "https" if secure else "http", client)
        self._connections.add(connection)
        try:
            await connection.serve()
        except Exception:
            # Whatever a client makes of a protocol must not end the node.
            log.exception("a connection to the gateway failed")
        finally:
            self._connections.discard(connection)

    async def _end_what_waits(self) -> None:
        """One task for the time limits of all: each request would have to set and unset its own."""
        while True:
            await trio.sleep(min(IDLE_S, web_visit.BEGIN_TIMEOUT_S) / LOOKS)
            now = trio.current_time()
            for connection in list(self._connections):
                connection.expire(now - IDLE_S)
            for visit in list(self._visits.values()):
                visit.expire(now - web_visit.BEGIN_TIMEOUT_S)

    def retire(self, functions: frozenset[str], drain_s: float) -> None:
        """These functions are deployed no more: their WebSockets may stay open for so long."""
        visits = [each for each in self._visits.values() if each.socket and function_id(each.function) in functions]
        if visits and self._nursery:
            self._nursery.start_soon(self._cut, visits, drain_s)

    async def _cut(self, visits: list[Visit | Guest], drain_s: float) -> None:
        await trio.sleep(drain_s)
        for visit in visits:
            visit.stop(Failure.of(InputCancellation("Another version of the app was deployed.")), RESTART)

    # Requests

    def take(self, exchange: Exchange | SocketTalk) -> None:
        """Answer it, or begin to."""
        found = (exchange.wrong if isinstance(exchange, SocketTalk) else None) or self._look_up(exchange.head)
        if not isinstance(found, Answer):
            function, where = found
            found = self._doors.enter(f"{function.app}/{function.name}") or found
        if isinstance(found, Answer):
            exchange.answer(Reply().answer(found))
            return
        function, where = found
        visit = self._opened(function, exchange.head.headers)
        if isinstance(exchange, Exchange) and exchange.whole:
            request = _request(exchange, where, exchange.take_body(), more=False)
            Short(visit, exchange, lambda: self._closed(visit)).begin(request)
        else:
            exchange.spawn(partial(self._visit, visit, where, exchange))

    def _look_up(self, head: Head) -> Answer | tuple[FunctionSpec, Route]:
        if not names_us(head.headers, self._hosts):
            return NO_HOST
        where = route(path_of(head.target))
        function = self._function(where) if where else None
        if function is None or where is None:
            return NOT_FOUND
        if function.web and function.web.private and not self._admits(*proof(head.headers)):
            return NO_TOKEN
        return function, where

    def _function(self, where: Route) -> FunctionSpec | None:
        here = self.endpoints.endpoint(where.app, where.label) if self.endpoints else None
        return here or (self.owners.function(where.app, where.label) if self.owners else None)

    def _opened(self, function: FunctionSpec, headers: web.Headers) -> Visit:
        call, caller = f"web.{next(self._numbers)}", cast("Placer", self._caller)
        if self.owners and self._nursery and not function.image:
            caller = self.owners.placer(function.app, proof(headers), self._nursery.start_soon)
        worker, note = self._home(function, headers)
        visit = self._visits[call] = Visit(call, function, caller, self.heard, worker, note)
        return visit

    def _home(self, function: FunctionSpec, headers: web.Headers) -> tuple[str, Callable[[str], None]]:
        """The worker that answered a client's session last, and what is to be told which one does now."""
        name, key = session(headers), f"{function.app}/{function.name}"
        note = (lambda worker: self._sessions.note(key, name, worker)) if name else _forget
        return self._sessions.worker(key, name), note

    # For other nodes' gateways

    def admit(self, peer: str, request: Request, key: str, secret: str) -> FunctionSpec | Answer:
        """The function that is to answer what a peer's gateway took, or why none does."""
        where = route(request.root)
        if where is None or peer not in self._settings.gateways.get(where.app, ()):
            return NOT_GRANTED
        if where.root != request.root or not request.path.startswith(where.root):
            return ODD_REQUEST
        function = self.endpoints.endpoint(where.app, where.label) if self.endpoints else None
        if function is None:
            return NOT_FOUND
        if function.web and function.web.private and not self._admits(key, secret):
            return NO_TOKEN
        return odd(request) or function

    def welcome(self, guest: Guest, headers: web.Headers) -> Answer | None:
        """Count it, and have it begin; or why not."""
        if refused := self._doors.enter(f"{guest.function.app}/{guest.function.name}"):
            return refused
        call = f"web.{next(self._numbers)}"
        self._visits[call] = guest
        guest.begin(call, *self._home(guest.function, headers))
        return None

    def farewell(self, guest: Guest) -> None:
        """It is over."""
        self._closed(guest)

    def _closed(self, visit: Visit | Guest) -> None:
        del self._visits[visit.call]
        self._doors.leave(f"{visit.function.app}/{visit.function.name}")

    async def _visit(self, visit: Visit, where: Route, exchange: Exchange | SocketTalk) -> None:
        try:
            if isinstance(exchange, SocketTalk):
                visit.begin(_socket_request(exchange, where))
            else:
                visit.begin(_request(exchange, where, *await first_part(exchange.head.headers, exchange.receive)))
            await visit.serve(exchange.receive, exchange.send)
        except BodyError as error:
            for message in Reply().answer(error.answer):
                await exchange.send(message)
        except ClientLeft:
            pass
        finally:
            self._closed(visit)

    # As a client of the apps

    def open_apps(self) -> list[str]:
        return [visit.function.app for visit in self._visits.values()]

    def cancel_call(self, call: str, failure: Failure) -> bool:
        visit = self._visits.get(call)
        if visit:
            visit.stop(failure)
        return visit is not None

    def cancel_app(self, app: str, failure: Failure) -> int:
        visits = [visit for visit in self._visits.values() if visit.function.app == app]
        for visit in visits:
            visit.stop(failure)
        return len(visits)


def _secure(cert: str, key: str) -> ssl.SSLContext | None:
    """`cert` and `key` name files in PEM, or are empty. Raises `InvalidError` when they cannot be used."""
    if not cert and not key:
        return None
    try:
        if not (cert and key):
            raise ValueError("one of the two settings is missing")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(cert, key)
        context.set_alpn_protocols(["http/1.1"])
    except (OSError, ValueError) as error:
        raise InvalidError(
            f"The gateway cannot use the certificate {cert or 'of no name'}.",
            why=str(error),
            fix="Mend the settings `gateway_cert` and `gateway_key`: both name files in PEM.",
        ) from None
    return context


def _address(stream: trio.SocketStream) -> tuple[str, int] | None:
    try:
        host, port, *_ = stream.socket.getpeername()
    except OSError:
        return None
    return str(host), int(port)


def _bound(host: str, port: int) -> trio.SocketListener:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return trio.SocketListener(trio.socket.from_stdlib_socket(listener))


def _forget(worker: str) -> None:
    """Nobody asked to meet it again."""


def _request(exchange: Exchange, where: Route, body: bytes, more: bool) -> web.HttpRequest:
    return web.HttpRequest(method=exchange.head.method, **_common(exchange, where), body=body, more=more)


def _socket_request(talk: SocketTalk, where: Route) -> web.SocketRequest:
    return web.SocketRequest(**_common(talk, where), subprotocols=talk.subprotocols)


def _common(exchange: Exchange | SocketTalk, where: Route) -> dict[str, Any]:
    """An application has a root, also when the URL that was printed is asked for as it is."""
    head = exchange.head
    raw_path, _, query = head.target.partition(b"?")
    path = path_of(head.target)
    bare = "/" if path == where.root else ""
    return {
        "scheme": exchange.scheme,
        "http_version": head.version,
        "root": where.root,
        "path": path + bare,
        "raw_path": raw_path + bare.encode(),
        "query": query,
        "headers": passed_on(head.headers),
        "client": exchange.client,
    }
