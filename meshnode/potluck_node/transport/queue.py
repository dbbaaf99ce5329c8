"""Frames on their way to a reader, bounded by bytes; used by every transport."""

from __future__ import annotations

from collections import deque

import trio

from potluck_node.transport.interface import StreamClosedError

# Bytes held for a reader that is busy elsewhere. Four times the credit of a lease (wire.lease.CREDIT_BYTES),
# and room for one full answer to a chunk request: an honest peer never fills it, and 256 streams of one peer
# cannot take the machine.
QUEUE_BYTES_MAX = 16 << 20


class FrameQueue:
    """One direction of a stream. `delay_s` makes each frame wait, as on a long link (simulated transports
    only).
    """

    def __init__(self, delay_s: float = 0.0) -> None:
        self._frames: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._delay_s = delay_s
        self._end: str | None = None
        self._held = False
        self._changed = trio.lowlevel.ParkingLot()

    async def put(self, frame: bytes) -> None:
        """Add a frame, waiting for room; cancelled, it has added nothing. Raises `StreamClosedError`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._end is None and self._bytes and self._bytes + len(frame) > QUEUE_BYTES_MAX:
            await self._changed.park()
        if self._end is not None:
            raise StreamClosedError(self._end)
        due = trio.current_time() + self._delay_s if self._delay_s else 0.0
        self._frames.append((due, frame))
        self._bytes += len(frame)
        self._changed.unpark_all()

    async def get(self) -> bytes:
        """The next frame; cancelling loses nothing. Raises `StreamClosedError` after the last one."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._ready():
            await self._wait()
        _, frame = self._frames.popleft()
        self._bytes -= len(frame)
        self._changed.unpark_all()
        return frame

    def close(self, reason: str, *, discard: bool = False) -> None:
        """End the queue; what is in it can still be read unless `discard`."""
        if self._end is None:
            self._end = reason
        if discard:
            self._frames.clear()
            self._bytes = 0
        self._changed.unpark_all()

    def hold(self, held: bool) -> None:
        """While held, nothing arrives, not even the end: the other machine is frozen or unplugged."""
        self._held = held
        self._changed.unpark_all()

    @property
    def ended(self) -> bool:
        return self._end is not None

    def _ready(self) -> bool:
        if self._held:
            return False
        if not self._frames and self._end is not None:
            raise StreamClosedError(self._end)
        return bool(self._frames) and self._frames[0][0] <= (trio.current_time() if self._delay_s else 0.0)

    async def _wait(self) -> None:
        if self._frames and not self._held:
            await trio.sleep_until(self._frames[0][0])
        else:
            await self._changed.park()
