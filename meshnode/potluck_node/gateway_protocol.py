"""How the gateway speaks HTTP and WebSockets: by Hypercorn, a connection at a time. Imported when a port is opened."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from potluck.errors import InvalidError
from potluck.wire import web
from potluck_node.core.web import HEADER_BYTES_MAX

if TYPE_CHECKING:
    from potluck_node.gateway import ClientStream

log = logging.getLogger("potluck.gateway")

HANDSHAKE_TIMEOUT_S = 10.0
# A WebSocket whose client does not answer this often is dead, seconds.
PING_S = 20.0


class Protocols:
    """`take` is the application; `cert` and `key` name files in PEM, or are empty. Raises `InvalidError` when they
    cannot be used."""

    def __init__(self, take: Callable[..., Awaitable[None]], cert: str, key: str) -> None:
        self._take, self._context = take, WorkerContext(None)
        self._config, self.secure = _config(cert, key)

    async def speak(self, stream: ClientStream) -> None:
        """Serve one connection to its end."""
        state = ConnectionState({})
        await _Connection(self._take, self._config, self._context, state, cast(Any, stream)).run()


def _config(cert: str, key: str) -> tuple[Config, ssl.SSLContext | None]:
    config = Config()
    config.errorlog, config.accesslog = log, None
    config.h11_max_incomplete_size = HEADER_BYTES_MAX
    config.h2_max_header_list_size = HEADER_BYTES_MAX
    config.keep_alive_max_requests = 1 << 30
    config.ssl_handshake_timeout = HANDSHAKE_TIMEOUT_S
    config.websocket_max_message_size = web.SOCKET_MESSAGE_BYTES_MAX
    config.websocket_ping_interval = PING_S
    config.include_server_header = False
    config.certfile, config.keyfile = cert or None, key or None
    if not cert and not key:
        return config, None
    try:
        if not (cert and key):
            raise ValueError("one of the two settings is missing")
        return config, config.create_ssl_context()
    except (OSError, ValueError) as error:
        raise InvalidError(
            f"The gateway cannot use the certificate {cert or 'of no name'}.",
            why=str(error),
            fix="Mend the settings `gateway_cert` and `gateway_key`: both name files in PEM.",
        ) from None


class _Connection(TCPServer):
    """With one deadline for a connection that is idle, in place of a task for each time that it is; and what a client
    is told at once by HTTP/1.1, such as the head of a response and its body, in one write."""

    def __init__(self, take: Callable[..., Awaitable[None]], *args: Any) -> None:
        super().__init__(ASGIWrapper(cast(Any, self._ask)), *args)
        self.idle_task = cast(Any, _NoTask())
        self._take, self._gathers = take, False
        # A head, and as much as one message of the application has.
        self._held: list[bytes] = []

    async def _ask(self, scope: Any, receive: Any, send: Any) -> None:
        async def gather(message: dict[str, Any]) -> None:
            self._gathers = isinstance(self.protocol.protocol, H11Protocol)
            try:
                await send(message)
            finally:
                self._gathers = False
            # After the head the application sends the first of the body, if only that there is none yet.
            if not message["type"].endswith("response.start"):
                await self._flush()

        await self._take(scope, receive, gather)

    async def _flush(self) -> None:
        held, self._held = self._held, []
        if held:
            await super().protocol_send(RawData(b"".join(held)))

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, Updated):
            cast("ClientStream", self.stream).set_idle(event.idle)
        elif isinstance(event, RawData):
            # Of an end that is clear from the length, nothing is sent.
            self._held += [event.data] if event.data else []
            if not self._gathers:
                await self._flush()
        else:
            await self._flush()
            await super().protocol_send(event)


class _NoTask:
    async def restart(self, *args: object) -> None: ...

    async def stop(self) -> None: ...
