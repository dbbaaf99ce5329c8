"""The gateway: an HTTP server whose requests are answered by functions on the mesh.

Hypercorn speaks the protocol, one connection at a time; here are the limits, the routes, and the end of it.
"""

from __future__ import annotations

import errno
import itertools
import logging
import math
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import trio

from potluck.errors import InputCancellation, InvalidError
from potluck.wire import Failure, FunctionSpec, function_id, web
from potluck_node.apps import ClientApps
from potluck_node.caller import Caller
from potluck_node.core.web import (
    HEADER_BYTES_MAX,
    NO_HOST,
    NO_TOKEN,
    NOT_FOUND,
    RESTART,
    TOO_MANY_HEADERS,
    Answer,
    Doors,
    Reply,
    Route,
    Sessions,
    header_bytes,
    names_us,
    passed_on,
    proof,
    route,
    session,
)
from potluck_node.web_visit import BodyError, ClientLeft, Heard, Receive, Send, Visit, first_part

if TYPE_CHECKING:
    from trio_typing import TaskStatus

    from potluck_node.gateway_protocol import Protocols

log = logging.getLogger("potluck.gateway")

# Connections at once: each costs a descriptor and some 50 KiB; half of what the node may have.
CONNECTIONS_MAX = 4096
# A connection without a request, or with the half of one, is closed after this, seconds.
IDLE_S = 20.0
# How long a client may take to read what it is sent next (at most some 64 KiB), seconds.
WRITE_TIMEOUT_S = 60.0
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


class Gateway:
    """Listens from the first `base` on. `admits` takes the key and the secret of a client."""

    def __init__(self, settings: Binding, default: str, caller: Caller, admits: Callable[[str, str], bool]) -> None:
        self._settings, self._default, self._caller, self._admits = settings, default, caller, admits
        self.endpoints: Endpoints | None = None
        self.heard: Heard = lambda app, function, message: None
        # As a client of the apps: its calls end with their app.
        self.apps = ClientApps(os.getpid())
        self._doors, self._sessions, self._numbers = Doors(), Sessions(), itertools.count(1)
        self._visits: dict[str, Visit] = {}
        self._streams: set[ClientStream] = set()
        self._hosts: tuple[str, ...] = ()
        self._url = ""
        self._nursery: trio.Nursery | None = None
        self._opening = trio.Lock()

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                for stream in self._streams:
                    stream.abort()

    @property
    def busy(self) -> bool:
        return bool(self._visits)

    async def base(self) -> str:
        """Where it is reached, "" when it is turned off. Raises `InvalidError` when it cannot listen there."""
        async with self._opening:
            if not self._url and self._settings.gateway != "none":
                assert self._nursery, "the gateway is not being served"
                # Here, since few nodes answer anybody and it would be a tenth of every node's start.
                from potluck_node.gateway_protocol import Protocols

                protocols = Protocols(self._take, self._settings.gateway_cert, self._settings.gateway_key)
                listener, scheme = self._listen(), "https" if protocols.secure else "http"
                host, port = listener.socket.getsockname()[:2]
                shown = f"[{host}]" if ":" in host else host
                if host in ("0.0.0.0", "::"):
                    shown = (self._settings.gateway_hosts or (socket.gethostname(),))[0]
                self._hosts = (*LOCAL_NAMES, shown.lower(), *(each.lower() for each in self._settings.gateway_hosts))
                self._nursery.start_soon(self._accept_all, listener, protocols)
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

    async def _accept_all(self, listener: trio.SocketListener, protocols: Protocols) -> None:
        assert self._nursery
        while True:
            try:
                accepted: Any = await listener.accept()
            except OSError as error:
                log.warning("the gateway cannot accept a connection: %s", error)
                await trio.sleep(ACCEPT_PAUSE_S)
                continue
            if len(self._streams) >= CONNECTIONS_MAX:
                await trio.aclose_forcefully(accepted)
                continue
            if protocols.secure:
                accepted = trio.SSLStream(accepted, protocols.secure, server_side=True, https_compatible=True)
            self._nursery.start_soon(self._connection, ClientStream(accepted), protocols)

    async def _connection(self, stream: ClientStream, protocols: Protocols) -> None:
        self._streams.add(stream)
        try:
            await protocols.speak(stream)
        except Exception:
            # Whatever a client makes of a protocol must not end the node.
            log.exception("a connection to the gateway failed")
        finally:
            self._streams.discard(stream)
            # Hypercorn leaves one open whose TLS handshake failed.
            await stream.close()

    def retire(self, functions: frozenset[str], drain_s: float) -> None:
        """These functions are deployed no more: their WebSockets may stay open for so long."""
        visits = [each for each in self._visits.values() if each.socket and function_id(each.function) in functions]
        if visits and self._nursery:
            self._nursery.start_soon(self._cut, visits, drain_s)

    async def _cut(self, visits: list[Visit], drain_s: float) -> None:
        await trio.sleep(drain_s)
        for visit in visits:
            visit.stop(Failure.of(InputCancellation("Another version of the app was deployed.")), RESTART)

    # Requests

    async def _take(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return
        headers: web.Headers = tuple((bytes(name), bytes(value)) for name, value in scope["headers"])
        found = self._look_up(scope["path"], headers)
        if isinstance(found, Answer):
            await self._refuse(scope, send, found)
            return
        function, where = found
        key = f"{function.app}/{function.name}"
        if refused := self._doors.enter(key):
            await self._refuse(scope, send, refused)
            return
        try:
            await self._visit(function, where, scope, headers, receive, send)
        finally:
            self._doors.leave(key)

    def _look_up(self, path: str, headers: web.Headers) -> Answer | tuple[FunctionSpec, Route]:
        if not names_us(headers, self._hosts):
            return NO_HOST
        if header_bytes(headers) > HEADER_BYTES_MAX:
            return TOO_MANY_HEADERS
        where = route(path)
        function = self.endpoints.endpoint(where.app, where.label) if where and self.endpoints else None
        if function is None or where is None:
            return NOT_FOUND
        if function.web and function.web.private and not self._admits(*proof(headers)):
            return NO_TOKEN
        return function, where

    async def _visit(
        self, function: FunctionSpec, where: Route, scope: dict[str, Any], headers: web.Headers, receive: Receive,
        send: Send,
    ) -> None:  # fmt: skip
        call = f"web.{next(self._numbers)}"
        name, key = session(headers), f"{function.app}/{function.name}"
        visit = self._visits[call] = Visit(
            call, function, self._caller, self.heard, self._sessions.worker(key, name),
            lambda worker: self._sessions.note(key, name, worker),
        )  # fmt: skip
        try:
            if scope["type"] == "websocket":
                await receive()  # it always begins with its connecting
                request: web.HttpRequest | web.SocketRequest = _socket_request(scope, where, headers)
            else:
                request = _http_request(scope, where, headers, *await first_part(headers, receive))
            await visit.serve(request, receive, send)
        except BodyError as error:
            await self._refuse(scope, send, error.answer)
        except ClientLeft:
            pass
        finally:
            del self._visits[call]

    async def _refuse(self, scope: dict[str, Any], send: Send, answer: Answer) -> None:
        for message in Reply(socket=scope["type"] == "websocket").answer(answer):
            await send(message)

    # As a client of the apps

    def open_apps(self) -> list[str]:
        return [visit.function.app for visit in self._visits.values()]

    def cancel_app(self, app: str, failure: Failure) -> int:
        visits = [visit for visit in self._visits.values() if visit.function.app == app]
        for visit in visits:
            visit.stop(failure)
        return len(visits)


class ClientStream:
    """A client's connection, as Hypercorn uses it, but that an idle one is closed and that writing ends: Hypercorn
    shields its writes from cancellation."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._idle_until = trio.current_time() + IDLE_S
        self._reading: trio.CancelScope | None = None
        self._writing: set[trio.CancelScope] = set()
        self._aborted = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def set_idle(self, idle: bool) -> None:
        """Whether it waits for a request, which must then come within `IDLE_S` as a whole."""
        self._idle_until = trio.current_time() + IDLE_S if idle else math.inf
        if self._reading:
            self._reading.deadline = self._idle_until

    async def receive_some(self, max_bytes: int) -> bytes:
        """Nothing once it was idle for too long, as if the client had gone."""
        with trio.CancelScope(deadline=self._idle_until) as self._reading:
            data: bytes = await self._stream.receive_some(max_bytes)
            return data
        return b""

    async def send_all(self, data: bytes) -> None:
        with trio.move_on_after(0 if self._aborted else WRITE_TIMEOUT_S) as scope:
            self._writing.add(scope)
            try:
                await self._stream.send_all(data)
            finally:
                self._writing.discard(scope)
            return
        await self.close()
        raise trio.BrokenResourceError("the client does not read")

    async def close(self) -> None:
        """At once, without a word."""
        await trio.aclose_forcefully(self._stream)

    def abort(self) -> None:
        """Whoever writes ends."""
        self._aborted = True
        for scope in self._writing:
            scope.cancel()


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


def _http_request(
    scope: dict[str, Any], where: Route, headers: web.Headers, body: bytes, more: bool
) -> web.HttpRequest:
    return web.HttpRequest(scope["method"], **_common(scope, where, headers), body=body, more=more)


def _socket_request(scope: dict[str, Any], where: Route, headers: web.Headers) -> web.SocketRequest:
    return web.SocketRequest(**_common(scope, where, headers), subprotocols=tuple(scope["subprotocols"]))


def _common(scope: dict[str, Any], where: Route, headers: web.Headers) -> dict[str, Any]:
    """An application has a root, also when the URL that was printed is asked for as it is."""
    client, bare = scope.get("client"), "/" if scope["path"] == where.root else ""
    return {
        "scheme": scope["scheme"],
        "http_version": scope["http_version"],
        "root": where.root,
        "path": scope["path"] + bare,
        "raw_path": scope["raw_path"] + bare.encode(),
        "query": scope["query_string"],
        "headers": passed_on(headers),
        "client": (str(client[0]), int(client[1])) if client else None,
    }
