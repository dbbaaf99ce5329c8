"""Metrics over HTTP, for Prometheus: GET /metrics, where the setting `metrics` says."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import h11
import trio

from potluck.errors import InvalidError
from potluck.wire.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("potluck.metrics")

# A scrape is one short request; whoever takes longer is cut off, seconds.
TIMEOUT_S = 5.0
# Requests at once: one Prometheus asks now and then.
CLIENTS_MAX = 16
_READ_BYTES = 16 << 10

_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError, h11.LocalProtocolError)


class Metrics:
    """Answers with what `text` says. Raises `InvalidError` for an address that is none."""

    def __init__(self, address: str, text: Callable[[], str]) -> None:
        self._text, self._address = text, _parsed(address)
        self._places = trio.CapacityLimiter(CLIENTS_MAX)
        # What it listens on.
        self.port = 0

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; at once over where the address is none, or cannot be had, which is said."""
        if self._address is None:
            task_status.started()
            return
        host, port = self._address
        try:
            listeners = await trio.open_tcp_listeners(port, host=host)
        except OSError as error:
            log.error("no metrics at %s:%d: %s", host, port, error)
            task_status.started()
            return
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._answer, listeners)

    async def _answer(self, stream: trio.SocketStream) -> None:
        with trio.move_on_after(TIMEOUT_S):
            try:
                async with self._places, stream:
                    await self._converse(stream, h11.Connection(h11.SERVER))
            except _BROKEN as error:
                log.debug("a client of the metrics is gone: %s", error)

    async def _converse(self, stream: trio.SocketStream, http: h11.Connection) -> None:
        """One request; then the connection ends."""
        while (event := http.next_event()) is h11.NEED_DATA:
            http.receive_data(await stream.receive_some(_READ_BYTES))
        if not isinstance(event, h11.Request):
            return
        is_ours = (event.method, event.target.partition(b"?")[0]) == (b"GET", b"/metrics")
        body = self._text().encode() if is_ours else b"GET /metrics\n"
        headers = [("content-type", CONTENT_TYPE), ("content-length", str(len(body))), ("connection", "close")]
        parts = [h11.Response(status_code=200 if is_ours else 404, headers=headers), h11.Data(body), h11.EndOfMessage()]
        await stream.send_all(b"".join(http.send(part) or b"" for part in parts))


def _parsed(address: str) -> tuple[str, int] | None:
    if address in ("", "none"):
        return None
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidError(f"metrics = {address!r} is no address.", fix="Write HOST:PORT, as 127.0.0.1:9478, or none.")
    return host.strip("[]"), int(port)
