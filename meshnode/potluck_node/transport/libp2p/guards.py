"""Guards around py-libp2p's connections: who may be in a handshake, how a socket is read, what a muxer may
hold.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakSet

import trio
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream
from libp2p.stream_muxer import muxer_multistream
from libp2p.stream_muxer.yamux import yamux
from libp2p.stream_muxer.yamux.yamux import MAX_WINDOW_SIZE, Yamux, YamuxStream
from libp2p.transport.tcp.tcp import TCP

log = logging.getLogger("potluck.transport")

# A peer that has not proved its identity after this long is cut off, seconds. Two round trips and two
# signatures.
HANDSHAKE_TIMEOUT_S = 2.0

# Handshakes in progress, from one address (IPv6: one /64) and in all. One more pushes out the oldest, so that
# sockets which never speak cannot keep a peer waiting: to push out an honest handshake of some 20 ms one
# needs this many connections within that time.
HANDSHAKES_PER_ADDRESS_MAX = 64
HANDSHAKES_MAX = 512

# Established connections from one address: a lab behind one NAT fits, and nobody alone can take all
# CONNECTIONS_MAX.
CONNECTIONS_PER_ADDRESS_MAX = 128

# Bytes asked of the socket at once. The library asks for two bytes (a length) and then for one message.
READ_BYTES = 256 << 10

# A connection on which nothing can be written for this long is closed, seconds. The write may not be
# cancelled earlier: half a Noise message makes all that follows unreadable.
WRITE_STALL_S = 10.0

# Unread bytes of one stream inside the muxer. The library announces windows of up to MAX_WINDOW_SIZE and does
# not enforce them; without this, a peer that ignores its window fills our memory.
STREAM_BUFFER_MAX = MAX_WINDOW_SIZE + (1 << 20)

# TCP notices an unplugged machine: probes after 10 s of silence, gives up after 3 (seconds; Linux names).
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}

# There are no probes while something was sent and not acknowledged: then this ends a connection, whose peer has gone
# without a word; otherwise it takes the kernel a quarter of an hour. Milliseconds.
_UNACKNOWLEDGED_MS = 15_000


class TooManyError(Exception):
    """An address has as many connections as one may have."""


class Handshakes:
    """Connections whose peer has not proved its identity yet. The newest wins."""

    def __init__(self) -> None:
        self._pending: dict[trio.CancelScope, str] = {}
        self.established: Counter[str] = Counter()

    @contextmanager
    def counted(self, address: str) -> Iterator[None]:
        """Count one connection from an address while the block lasts. Raises `TooManyError`."""
        if self.established[address] >= CONNECTIONS_PER_ADDRESS_MAX:
            raise TooManyError(f"{address} has {self.established[address]} already")
        self.established[address] += 1
        try:
            yield
        finally:
            self.established[address] -= 1
            if not self.established[address]:
                del self.established[address]

    @contextmanager
    def slot(self, address: str) -> Iterator[trio.CancelScope]:
        """Hold a slot. The scope is cancelled when the slot is needed for another."""
        self._make_room(address)
        with trio.CancelScope() as scope:
            self._pending[scope] = address
            try:
                yield scope
            finally:
                self._pending.pop(scope, None)

    def _make_room(self, address: str) -> None:
        same = [scope for scope, other in self._pending.items() if other == address]
        if len(same) >= HANDSHAKES_PER_ADDRESS_MAX:
            self._evict(same[0])
        elif len(self._pending) >= HANDSHAKES_MAX:
            self._evict(next(iter(self._pending)))

    def _evict(self, scope: trio.CancelScope) -> None:
        del self._pending[scope]
        scope.cancel()


def source(host: str) -> str:
    """The unit that limits count by: an IPv4 address or an IPv6 /64."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, 64), strict=False))


# All of them, so that those can be closed whose address of ours is gone.
SOCKETS: WeakSet[trio.SocketStream] = WeakSet()


class BufferedTcp(TrioTCPStream):  # type: ignore[misc]
    """A socket read in large pieces, with keepalive."""

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream)
        self._rest = memoryview(b"")
        SOCKETS.add(stream)
        with suppress(OSError):
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEPALIVE.items():
                stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)

    async def read(self, n: int | None = None) -> bytes:
        if not self._rest:
            self._rest = memoryview(await self._receive())
        piece = self._rest if n is None else self._rest[:n]
        self._rest = self._rest[len(piece) :]
        return bytes(piece)

    async def _receive(self) -> bytes:
        # Without the library's lock: there is one reader, and a lock costs a turn of the event loop.
        try:
            return bytes(await self.stream.receive_some(READ_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionClosedError(f"the connection is gone: {error}", transport="tcp") from error

    async def write(self, data: bytes) -> None:
        # Without a lock too: the muxer has one.
        try:
            await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionClosedError(f"the connection is gone: {error}", transport="tcp") from error

    async def read_exactly(self, count: int) -> bytes:
        """So many bytes, and none more from the socket. Raises `ConnectionError` when they do not come."""
        data = b""
        while len(data) < count:
            try:
                piece = await self.stream.receive_some(count - len(data))
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise ConnectionError(f"the connection is gone: {error}") from error
            if not piece:
                raise ConnectionError("the connection was closed")
            data += piece
        return data

    async def begins_with(self, *magics: bytes) -> bytes:
        """Which of these, of one length, comes first, and is then read; anything else is left for `read`: empty. Raises
        as `read_exactly`.

        The library's own first words are longer, and it wants those of a private mesh (8 bytes) in one piece.
        """
        seen = await self.read_exactly(len(magics[0]))
        if seen in magics:
            return seen
        self._rest = memoryview(seen)
        return b""

    def get_remote_address(self) -> tuple[str, int] | None:
        """Host and port of the other side; the library's own knows no IPv6."""
        with suppress(OSError):
            host, port = self.stream.socket.getpeername()[:2]
            return str(host), int(port)
        return None

    def source(self) -> str:
        """Where the peer connects from, as limits count it."""
        try:
            return source(self.stream.socket.getpeername()[0])
        except (OSError, ValueError):
            return "unknown"


class BufferedTcpTransport(TCP):  # type: ignore[misc]
    """Dials sockets that are read in large pieces."""

    async def dial(self, maddr: Any) -> Any:
        connection = await super().dial(maddr)
        connection.stream = BufferedTcp(connection.stream.stream)
        return connection


class _BoundedBuffer(bytearray):
    def extend(self, data: Any) -> None:
        if len(self) + len(data) > STREAM_BUFFER_MAX:
            raise ValueError(f"the peer ignores its window: over {STREAM_BUFFER_MAX} bytes unread")
        super().extend(data)


class _BoundedBuffers(dict[int, bytearray]):
    def __setitem__(self, stream: int, buffer: bytearray) -> None:
        super().__setitem__(stream, _BoundedBuffer(buffer))


class GuardedYamux(Yamux):  # type: ignore[misc]
    """Yamux whose buffers are bounded and whose frames are never written by halves."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.stream_buffers = _BoundedBuffers()

    async def _write_frame(self, data: bytes) -> None:
        try:
            self._write_lock.acquire_nowait()
        except trio.WouldBlock:
            await self._write_lock.acquire()
        try:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + WRITE_STALL_S) as scope:
                await self.secured_conn.write(data)
        finally:
            self._write_lock.release()
        if scope.cancelled_caught:
            log.info("connection with %s closed: nothing written for %s s", self.peer_id, WRITE_STALL_S)
            await self._cleanup_on_error()


class GuardedYamuxStream(YamuxStream):  # type: ignore[misc]
    """A stream that grants its window in large steps.

    The library sends a window update for every read: twice the messages for small frames.
    """

    target_recv_window: int
    recv_window: int
    _pending_recv_release: int

    async def _auto_tune_and_send_window_update(self, *, bytes_read: int = 0) -> None:
        self._pending_recv_release += bytes_read
        if self._pending_recv_release < self.target_recv_window // 2:
            return
        grown = min(2 * self.target_recv_window, MAX_WINDOW_SIZE)
        increment = self._pending_recv_release + grown - self.target_recv_window
        self.target_recv_window = grown
        self._pending_recv_release = 0
        self.recv_window += increment
        await self.send_window_update(increment)


# The library makes its own classes, whatever class is passed for the protocol.
muxer_multistream.Yamux = GuardedYamux
yamux.YamuxStream = GuardedYamuxStream
