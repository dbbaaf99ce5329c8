"""One client of the proxy: CONNECT makes a tunnel, http:// requests are passed on. Parsing is h11's.

Each connection carries one request; all of them say so ("Connection: close"). RFC 9110 (7.6.1, 9.3.6), RFC 9112 (3.2).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import h11
import trio

from potluck_node.sandbox.network_policy import Refused, Target, parse_target

# A request's or answer's first lines and headers, bytes. Servers take 8 to 16 KiB, some send that much in cookies.
HEAD_BYTES_MAX = 32 << 10

# How long a client may take to send them, seconds: it is on this machine.
HEAD_TIMEOUT_S = 10.0

READ_BYTES = 64 << 10

# What concerns one connection and not the message (RFC 9110, 7.6.1). The framing stays: h11 makes it anew.
_HOP_BY_HOP = {b"connection", b"proxy-connection", b"keep-alive", b"proxy-authorization", b"te", b"upgrade", b"host"}

Connect = Callable[[Target], Awaitable[trio.SocketStream]]
# Told of bytes that have come in, before they go out; waits as long as they have to.
Passed = Callable[[int], Awaitable[None]]

# What ends a connection without anybody to tell: the other side is gone, or speaks nonsense in the middle.
BROKEN = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError)


class Side:
    """One end: a stream, and what h11 makes of it."""

    def __init__(self, role: type[h11.CLIENT] | type[h11.SERVER], stream: trio.SocketStream, passed: Passed) -> None:
        self.stream, self.passed = stream, passed
        self.http = h11.Connection(role, max_incomplete_event_size=HEAD_BYTES_MAX)

    async def next(self) -> Any:
        """The next event. Raises one of `BROKEN`."""
        while (event := self.http.next_event()) is h11.NEED_DATA:
            self.http.receive_data(await self._read())
        return event

    async def _read(self) -> bytes:
        data = bytes(await self.stream.receive_some(READ_BYTES))
        await self.passed(len(data))
        return data

    async def send(self, event: h11.Event) -> None:
        data = self.http.send(event)
        if data:
            await self.stream.send_all(data)


async def serve_client(
    stream: trio.SocketStream, connect: Connect, passed: Passed, tell: Callable[[str], None]
) -> None:
    """Serve one connection to its end. `connect` raises `Refused`; `tell` learns what was forbidden. Never raises."""
    client = Side(h11.SERVER, stream, passed)
    try:
        request = await _head(client)
        if request is not None:
            await _serve(client, request, connect)
    except* Refused as group:
        refused = _first(group)
        if refused.status == 403:
            tell(refused.reason)
        await _answer(client, refused)
    except* BROKEN:
        pass


def _first(group: BaseExceptionGroup[Refused]) -> Refused:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


async def _head(client: Side) -> h11.Request | None:
    """The request; None when the client left. A tunnel's has no body. Raises `Refused`."""
    try:
        with trio.fail_after(HEAD_TIMEOUT_S):
            request = await client.next()
            tunnel = isinstance(request, h11.Request) and request.method == b"CONNECT"
            if tunnel and not isinstance(await client.next(), h11.EndOfMessage):
                raise Refused(400, "A CONNECT request has no body.")
    except trio.TooSlowError:
        raise Refused(408, f"The request did not come within {HEAD_TIMEOUT_S:.0f} s.") from None
    except h11.RemoteProtocolError as error:
        raise Refused(400, f"This is no request to a proxy: {error}.") from None
    return request if isinstance(request, h11.Request) else None


async def _serve(client: Side, request: h11.Request, connect: Connect) -> None:
    text = request.target.decode("ascii", "replace")
    if request.method == b"CONNECT":
        async with await connect(parse_target(text)) as upstream:
            await _tunnel(client, upstream)
        return
    target, path = _split(text)
    async with await connect(target) as upstream:
        await _pass_on(client, Side(h11.CLIENT, upstream, client.passed), request, target, path)


def _split(url: str) -> tuple[Target, str]:
    """Host and path of an absolute http:// address."""
    if url[:7].lower() != "http://":
        raise Refused(400, "A proxy takes CONNECT, and requests for http:// addresses.")
    rest = url[7:]
    end = min((rest.find(mark) for mark in "/?#" if mark in rest), default=len(rest))
    path = rest[end:].partition("#")[0]
    return parse_target(rest[:end], 80), path if path.startswith("/") else f"/{path}"


async def _answer(client: Side, refused: Refused) -> None:
    """The reason is in the status line too: it is all that clients show of a refused CONNECT."""
    if client.http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return
    reason = refused.reason.encode("ascii", "replace")
    body = b"potluck: " + reason + b"\n"
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body))), ("Connection", "close")]
    try:
        with trio.move_on_after(HEAD_TIMEOUT_S):
            await client.send(h11.Response(status_code=refused.status, headers=headers, reason=reason))
            await client.send(h11.Data(data=body))
            await client.send(h11.EndOfMessage())
    except BROKEN:
        return


# Tunnels


async def _tunnel(client: Side, upstream: trio.SocketStream) -> None:
    await client.send(h11.Response(status_code=200, headers=[], reason=b"Connected"))
    early, _ = client.http.trailing_data
    if early:
        await upstream.send_all(early)
    async with trio.open_nursery() as both:
        both.start_soon(_copy, client.stream, upstream, client.passed)
        both.start_soon(_copy, upstream, client.stream, client.passed)


async def _copy(source: trio.SocketStream, sink: trio.SocketStream, passed: Passed) -> None:
    while data := await source.receive_some(READ_BYTES):
        await passed(len(data))
        await sink.send_all(data)
    await sink.send_eof()


# Requests that are passed on


async def _pass_on(client: Side, upstream: Side, request: h11.Request, target: Target, path: str) -> None:
    host = target.authority.removesuffix(":80")
    headers = [(b"Host", host.encode()), (b"Connection", b"close"), *_end_to_end(request.headers)]
    await upstream.send(h11.Request(method=request.method, target=path, headers=headers))
    async with trio.open_nursery() as both:
        both.start_soon(_pass_body, client, upstream)
        await _pass_answer(upstream, client)
        both.cancel_scope.cancel()


def _end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """`headers` without those of the connection."""
    named = b",".join(value for name, value in headers if name == b"connection").lower().split(b",")
    dropped = {*_HOP_BY_HOP, *(each.strip() for each in named)} - {b"content-length", b"transfer-encoding"}
    return [(name, value) for name, value in headers if name not in dropped]


async def _pass_body(client: Side, upstream: Side) -> None:
    """A server may answer, and hang up, before it has read everything."""
    try:
        while isinstance(event := await client.next(), h11.Data | h11.EndOfMessage):
            await upstream.send(event)
            if isinstance(event, h11.EndOfMessage):
                return
    except BROKEN:
        return


async def _pass_answer(upstream: Side, client: Side) -> None:
    while True:
        try:
            event = await upstream.next()
        except BROKEN as error:
            raise Refused(502, f"The server broke off: {error or 'it hung up'}.") from None
        if isinstance(event, h11.ConnectionClosed):
            return
        if isinstance(event, h11.Response):
            headers = [(b"Connection", b"close"), *_end_to_end(event.headers)]
            event = h11.Response(status_code=event.status_code, headers=headers, reason=event.reason)
        await client.send(event)
        if isinstance(event, h11.EndOfMessage):
            return
