"""Circuits: at a relay two streams joined, within limits; at their ends a connection for libp2p to secure."""

from __future__ import annotations

import struct
from contextlib import suppress

import trio
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError

from potluck.wire.reach import (
    CIRCUIT_DATA,
    CIRCUIT_PIECE_BYTES,
    CIRCUIT_READ,
    CIRCUIT_WINDOW_BYTES,
)
from potluck_node.core.circuits import CIRCUIT_LIFE_S, Desk, Meter
from potluck_node.transport.interface import Stream, StreamClosedError

_COUNT = struct.Struct(">I")


async def join(desk: Desk, one: Stream, other: Stream) -> None:
    """Pass frames both ways until either side ends, or the circuit is used up. Closes neither."""
    meter = Meter(trio.current_time())

    async def carry(direction: int, source: Stream, target: Stream) -> None:
        with suppress(StreamClosedError):
            while True:
                frame = await source.receive()
                wait = desk.passes(meter, direction, len(frame), trio.current_time())
                if wait is None:
                    break
                if wait:
                    await trio.sleep(wait)
                await target.send(frame)
        nursery.cancel_scope.cancel()

    with trio.move_on_after(CIRCUIT_LIFE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(carry, 0, one, other)
            nursery.start_soon(carry, 1, other, one)


class CircuitEnd(ReadWriteCloser):  # type: ignore[misc]
    """Bytes over a stream that a relay joined with the peer's. Never more than a window is on its way, so that whoever
    is in between need not hold more."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._rest = memoryview(b"")
        # What came and was not read; what was read and not told; what may still be sent, or -1 when it is over.
        self._held, self._untold, self._window = 0, 0, CIRCUIT_WINDOW_BYTES
        self._granted = trio.Event()
        self._arrived, self._arriving = trio.open_memory_channel[bytes](CIRCUIT_WINDOW_BYTES)

    async def run(self) -> None:
        """Take what comes; to be started by whoever makes it. Raises nothing."""
        with self._arrived, suppress(StreamClosedError):
            while self._take(await self._stream.receive()):
                pass
        self._window = -1
        self._granted.set()

    def _take(self, frame: bytes) -> bool:
        """False when the other end sends more than it was granted, or nonsense."""
        kind, size = frame[:1], len(frame) - 1
        if kind == CIRCUIT_READ and size == _COUNT.size:
            self._window = min(self._window + _COUNT.unpack(frame[1:])[0], CIRCUIT_WINDOW_BYTES)
            self._granted.set()
            return True
        self._held += size
        if kind != CIRCUIT_DATA or size < 1 or self._held > CIRCUIT_WINDOW_BYTES:
            return False
        self._arrived.send_nowait(frame[1:])
        return True

    async def read(self, n: int | None = None) -> bytes:
        if not self._rest:
            try:
                self._rest = memoryview(await self._arriving.receive())
            except trio.EndOfChannel:
                raise ConnectionClosedError("the circuit is gone", transport="tcp") from None
            await self._tell(len(self._rest))
        piece = self._rest if n is None else self._rest[:n]
        self._rest = self._rest[len(piece) :]
        return bytes(piece)

    async def _tell(self, size: int) -> None:
        self._held -= size
        self._untold += size
        if self._untold >= CIRCUIT_WINDOW_BYTES // 4:
            told, self._untold = self._untold, 0
            with suppress(StreamClosedError):
                await self._stream.send(CIRCUIT_READ + _COUNT.pack(told))

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            while self._window == 0:
                self._granted = trio.Event()
                await self._granted.wait()
            if self._window < 0:
                raise ConnectionClosedError("the circuit is gone", transport="tcp")
            piece = view[: min(CIRCUIT_PIECE_BYTES, self._window)]
            view = view[len(piece) :]
            self._window -= len(piece)
            try:
                await self._stream.send(CIRCUIT_DATA + piece)
            except StreamClosedError as error:
                raise ConnectionClosedError(f"the circuit is gone: {error}", transport="tcp") from error

    async def close(self) -> None:
        await self._stream.aclose()

    def get_remote_address(self) -> tuple[str, int] | None:
        """None: what is at the other end of the relay's stream has no address."""
        return None
