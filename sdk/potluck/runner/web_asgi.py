"""ASGI applications (https://asgi.readthedocs.io/en/latest/specs/main.html) on one event loop in a thread."""

from __future__ import annotations

import asyncio
import types
from collections import deque

from .codec import pack
from .crew import Loop
from .failures import Refusal
from .jobs import PAUSE_S
from .web import BODY_BYTES_MAX, GRACE_S, Exchange

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .codec import Message

# How long an application may take to shut down; the node then kills the worker, seconds.
SHUTDOWN_S = 2.0


def fastapi_app(function: Callable[..., Any], name: str, method: str, docs: bool) -> Any:
    """An application with one endpoint. Raises `Refusal` where FastAPI is not in the image."""
    try:
        from fastapi import FastAPI  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise Refusal(
            "image-import",
            f"{name} needs FastAPI, which its image lacks.",
            why=str(error),
            fix='Add it: image.uv_pip_install("fastapi[standard]").',
        ) from None
    pages = {} if docs else {"docs_url": None, "redoc_url": None, "openapi_url": None}
    app = FastAPI(title=name, **pages)
    app.add_api_route("/", function, methods=[method])
    return app


class AsgiSite:
    """`make` returns the application, or a coroutine that does."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._loop = make, Loop()
        self.finish = self._loop.finish
        self._app: Any = None
        self._state: dict[str, Any] = {}
        self._lifespan: Lifespan | None = None

    def exchange(self, worker: Any, number: int, request: Message) -> Exchange:
        return AsgiExchange(worker, number, request, self._loop.get())

    def start(self) -> None:
        made = self._make()
        self._app = self._loop.finish(made) if isinstance(made, types.CoroutineType) else made
        if not callable(self._app):
            raise Refusal("invalid", f"The function returned a {type(self._app).__name__}, no ASGI application.")
        self._lifespan = Lifespan(self._app, self._state)
        self._loop.finish(self._lifespan.startup())

    def answer(self, exchange: Exchange) -> None:
        assert isinstance(exchange, AsgiExchange)
        self._loop.get().call_soon_threadsafe(exchange.run, self._app, dict(self._state))

    def stop(self) -> None:
        if self._lifespan is not None:
            self._loop.finish(asyncio.wait_for(self._lifespan.shutdown(), SHUTDOWN_S))


class Lifespan:
    """https://asgi.readthedocs.io/en/latest/specs/lifespan.html; an application that raises at once has none."""

    def __init__(self, app: Any, state: dict[str, Any]) -> None:
        self._app, self._state = app, state
        self._events: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._answers: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())
        await self._events.put({"type": "lifespan.startup"})
        answer = await self._answers.get()
        if answer and answer["type"] == "lifespan.startup.failed":
            raise Refusal("execution", "The application did not start.", why=str(answer.get("message", "")))

    async def shutdown(self) -> None:
        if self._task is not None and not self._task.done():
            await self._events.put({"type": "lifespan.shutdown"})
            await self._answers.get()

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        try:
            await self._app(scope, self._events.get, self._answers.put)
        except Exception:  # noqa: BLE001 - how applications say that they have no lifespan
            self._state.clear()
        finally:
            await self._answers.put(None)


class AsgiExchange(Exchange):
    """`run`, and all that it calls, run on the loop."""

    def __init__(self, worker: Any, number: int, request: Message, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(worker, number, request)
        self._loop = loop
        self._came: deque[Message | None] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._head: list[Any] | None = None
        self._shown = False
        self._begun = False
        self._last: list[Any] | None = None
        self._over = False
        self._socket = request[0] == "SocketRequest"
        self._connected = False

    def feed(self, piece: Message | None) -> None:
        self._loop.call_soon_threadsafe(self._take, piece)

    def _take(self, piece: Message | None) -> None:
        self._came.append(piece)
        self._wake.set()
        if piece is None:
            self._loop.call_later(GRACE_S, self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def run(self, app: Any, state: dict[str, Any]) -> None:
        self._task = self._loop.create_task(self._serve(app, state))

    async def _serve(self, app: Any, state: dict[str, Any]) -> None:
        try:
            if self._socket:
                await app(socket_scope(self.request, state), self._receive_socket, self._send_socket)
            else:
                await app(http_scope(self.request, state), self._receive, self._send)
                if not self._over and not self.gone:
                    raise Refusal("execution", "The application returned without a whole response.")
            self.finish(self._last)
        except BaseException as error:  # noqa: BLE001 - whatever user code raises is an outcome
            self.fail(error)

    # HTTP

    async def _receive(self) -> dict[str, Any]:
        if not self._begun:
            self._begun = True
            body, more = self.request[10], self.request[11]
            if body or not more:
                return {"type": "http.request", "body": body, "more_body": bool(more)}
        piece = await self._next(want=bool(self.request[11]))
        if piece is None:
            return {"type": "http.disconnect"}
        _, data, more, *_ = piece
        return {"type": "http.request", "body": data, "more_body": bool(more)}

    async def _send(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "http.response.start" and self._head is None and not self._over:
            self._head = [int(message["status"]), _headers(message)]
            # Whoever does not send its body at once wants its headers to be seen.
            self._loop.call_soon(self._show_head)
        elif kind == "http.response.body" and not self._over:
            await self._send_body(bytes(message.get("body", b"")), bool(message.get("more_body", False)))
        elif kind not in ("http.response.start", "http.response.body"):
            raise RuntimeError(f"unexpected ASGI message {kind!r}")

    def _show_head(self) -> None:
        if self._head and not self._shown and not self._over and not self.gone:
            self._shown = True
            self.push(pack(["ResponseHead", *self._head, b"", True]))

    async def _send_body(self, body: bytes, more: bool) -> None:
        if self._head is None:
            raise RuntimeError("a body was sent before http.response.start")
        self._over = not more
        if not self._shown and not more and len(body) <= BODY_BYTES_MAX:
            self._last = ["ResponseHead", *self._head, body, False]
            return
        if not self._shown:
            self._shown = True
            await self._emit(["ResponseHead", *self._head, body[:BODY_BYTES_MAX], more or len(body) > BODY_BYTES_MAX])
            body = body[BODY_BYTES_MAX:]
            if not body:
                return
        elif not body and more:
            return
        for start in range(0, max(1, len(body)), BODY_BYTES_MAX):
            part = body[start : start + BODY_BYTES_MAX]
            await self._emit(["BodyPiece", part, more or start + len(part) < len(body)])

    # WebSockets

    async def _receive_socket(self) -> dict[str, Any]:
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        piece = await self._next(want=True)
        if piece is None:
            return {"type": "websocket.disconnect", "code": 1006}
        if piece[0] == "SocketClosed":
            return {"type": "websocket.disconnect", "code": piece[1], "reason": piece[2]}
        key = "text" if piece[0] == "SocketText" else "bytes"
        return {"type": "websocket.receive", key: piece[1]}

    async def _send_socket(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "websocket.accept":
            await self._emit(["SocketAccepted", message.get("subprotocol"), _headers(message)])
        elif kind == "websocket.send" and message.get("bytes") is not None:
            await self._emit(["SocketBytes", bytes(message["bytes"])])
        elif kind == "websocket.send":
            await self._emit(["SocketText", message["text"]])
        elif kind == "websocket.close":
            await self._emit(["SocketClosed", int(message.get("code", 1000)), message.get("reason") or ""])
        elif kind.startswith("websocket.http.response."):
            await self._send({**message, "type": kind.removeprefix("websocket.")})
        else:
            raise RuntimeError(f"unexpected ASGI message {kind!r}")

    # Both

    async def _next(self, want: bool) -> Message | None:
        """The next piece; None for ever once the client has gone."""
        if want:
            self.want()
        while not self._came:
            self._wake.clear()
            await self._wake.wait()
        if self._came[0] is None:
            return None
        *piece, size = self._came.popleft() or []
        assert isinstance(size, int)
        self.took(size)
        return piece

    async def _emit(self, item: list[Any]) -> None:
        payload = pack(item)
        while self.full(len(payload)):  # noqa: ASYNC110 - what makes room happens in another thread
            await asyncio.sleep(PAUSE_S)
        if not self.gone:
            self.push(payload)


def _headers(message: dict[str, Any]) -> list[list[bytes]]:
    return [[bytes(name), bytes(value)] for name, value in message.get("headers") or ()]


def http_scope(request: Message, state: dict[str, Any]) -> dict[str, Any]:
    """Of a `wire.web.HttpRequest`."""
    _, method, *rest = request
    return {**_scope(rest, state), "type": "http", "method": method, "extensions": {}}


def socket_scope(request: Message, state: dict[str, Any]) -> dict[str, Any]:
    """Of a `wire.web.SocketRequest`."""
    _, *rest = request
    offered: Any = rest[8]
    return {
        **_scope(rest, state),
        "type": "websocket",
        "subprotocols": list(offered),
        "extensions": {"websocket.http.response": {}},
    }


def _scope(fields: list[Any], state: dict[str, Any]) -> dict[str, Any]:
    scheme, version, root, path, raw_path, query, headers, client, *_ = fields
    return {
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": version,
        "scheme": scheme,
        "root_path": root,
        "path": path,
        "raw_path": raw_path,
        "query_string": query,
        "headers": [(name, value) for name, value in headers],
        "client": tuple(client) if client else None,
        "server": None,
        "state": state,
    }
