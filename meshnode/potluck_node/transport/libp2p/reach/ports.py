"""TCP from a port of our choice, and the probes that show how it looks from elsewhere.

Routers map the port of a connection, so only one from the listening port shows the way in to that, and a hole is
punched from the port that somebody saw. SO_REUSEPORT makes it possible, with which the library listens, too.
"""

from __future__ import annotations

import secrets
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import trio

from potluck.wire.reach import MAGIC, NONCE_BYTES
from potluck_node.transport.interface import TransportError

# A probe is one round trip and nothing is computed for it, seconds.
PROBE_TIMEOUT_S = 3.0
# How long a probe's connection is kept, so that the router keeps the mapping that it made; a punch is over by then.
PROBE_HOLD_S = 15.0
# Probes that are waited for at once.
PROBES_MAX = 256

# Pause between two attempts of a punch: a router that refuses what comes unasked ends the first ones at once.
AGAIN_S = 0.2


async def dial_from(port: int, host: str, to_port: int) -> trio.SocketStream:
    """Connect from a port of our own, which others may have, too; 0 is a new one. Raises `OSError`."""
    version6 = ":" in host
    sock = trio.socket.socket(socket.AF_INET6 if version6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        await sock.bind(("::" if version6 else "0.0.0.0", port))
        await sock.connect((host, to_port))
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)


async def punch(port: int, endpoints: tuple[tuple[str, int], ...], for_s: float) -> trio.SocketStream | None:
    """Dial all from our port, again and again: the first connection that comes about, or None."""
    found: list[trio.SocketStream] = []

    async def attempt(host: str, to_port: int) -> None:
        while not found:
            with suppress(OSError):
                found.append(await dial_from(port, host, to_port))
                nursery.cancel_scope.cancel()
                return
            await trio.sleep(AGAIN_S)

    with trio.move_on_after(for_s):
        async with trio.open_nursery() as nursery:
            for host, to_port in endpoints:
                nursery.start_soon(attempt, host, to_port)
    for spare in found[1:]:
        await trio.aclose_forcefully(spare)
    return found[0] if found else None


async def send_probe(host: str, to_port: int, nonce: bytes, port: int = 0) -> trio.SocketStream:
    """A connection that begins as a probe does, from `port` (0: a new one). Raises `OSError`."""
    stream = await dial_from(port, host, to_port)
    try:
        if port:
            # It is ended by a reset: otherwise the pair of ports would be taken for a minute, also for a punch.
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.send_all(MAGIC + nonce)
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        raise ConnectionError(f"the connection is gone: {error}") from None
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


@dataclass
class _Awaited:
    came: list[tuple[str, int, int]] = field(default_factory=list)
    event: trio.Event = field(default_factory=trio.Event)


class Probes:
    """Those that are waited for here. `came` lists where each came from, and at which of our ports."""

    def __init__(self) -> None:
        self._awaited: dict[bytes, _Awaited] = {}

    @contextmanager
    def expect(self) -> Iterator[tuple[bytes, _Awaited]]:
        """A nonce, and what comes with it while the block lasts. Raises `TransportError` when too many are awaited."""
        if len(self._awaited) >= PROBES_MAX:
            raise TransportError("too many probes are under way")
        nonce = secrets.token_bytes(NONCE_BYTES)
        self._awaited[nonce] = awaited = _Awaited()
        try:
            yield nonce, awaited
        finally:
            del self._awaited[nonce]

    def arrived(self, nonce: bytes, stream: trio.SocketStream) -> bool:
        """A connection began as a probe: whether it is one that is waited for."""
        awaited = self._awaited.get(nonce)
        if awaited is None:
            return False
        with suppress(OSError):
            host, port = stream.socket.getpeername()[:2]
            awaited.came.append((host, port, stream.socket.getsockname()[1]))
            awaited.event.set()
        return True


async def hold(stream: trio.SocketStream) -> None:
    """Keep a probe's connection until the other side ends it, at most `PROBE_HOLD_S`."""
    with trio.move_on_after(PROBE_HOLD_S), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await stream.receive_some(1)
