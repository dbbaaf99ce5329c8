"""Frames on their way to a reader, bounded by bytes; used by every transport."""

from __future__ import annotations

from collections import deque

import trio

from potluck_node.transport.interface import TransportError

# Bytes held for a reader that is busy elsewhere. Four times the credit of a lease (wire.lease.CREDIT_BYTES),
# and room for one full answer to a chunk request: an honest peer never fills it, and 256 streams of one peer
# cannot take the machine.
QUEUE_BYTES_MAX = 16 << 20

# What a frame costs besides its bytes: without it, a peer that sends empty frames fills the memory with nothing.
FRAME_COST = 128


class FrameQueue:
    """One direction of a stream, holding at most `limit` bytes (or one larger frame).

    `delay_s` makes each frame wait, as on a long link (simulated transports only).
    """

    def __init__(self, delay_s: float = 0.0, limit: int = QUEUE_BYTES_MAX) -> None:
        self._limit = limit
        self._frames: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._delay_s = delay_s
        self._end: TransportError | None = None
        self._held = False
        self._changed = trio.lowlevel.ParkingLot()

    async def put(self, frame: bytes) -> None:
        """Add a frame, waiting for room; cancelled, it has added nothing. Raises what it was closed with."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._end is None and self._bytes and self._bytes + len(frame) + FRAME_COST > self._limit:
            await self._changed.park()
        if self._end is not None:
            raise type(self._end)(*self._end.args)
        due = trio.current_time() + self._delay_s if self._delay_s else 0.0
        self._frames.append((due, frame))
        self._bytes += len(frame) + FRAME_COST
        self._changed.unpark_all()

    async def get(self) -> bytes:
        """The next frame; cancelling loses nothing. Raises what it was closed with after the last one."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._ready():
            await self._wait()
        return self._pop()

    async def get_batch(self, limit: int) -> list[bytes]:
        """The next frame and those that wait behind it, up to `limit` bytes together. As `get` otherwise."""
        batch = [await self.get()]
        size = len(batch[0])
        while self._frames and self._ready() and size + len(self._frames[0][1]) <= limit:
            batch.append(self._pop())
            size += len(batch[-1])
        return batch

    def close(self, error: TransportError, *, discard: bool = False) -> None:
        """End the queue: `put` raises `error`, and so does `get` once what is left was read, at once if
        `discard`.
        """
        if self._end is None:
            self._end = error
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

    def _pop(self) -> bytes:
        _, frame = self._frames.popleft()
        self._bytes -= len(frame) + FRAME_COST
        self._changed.unpark_all()
        return frame

    def _ready(self) -> bool:
        if self._held:
            return False
        if not self._frames and self._end is not None:
            raise type(self._end)(*self._end.args)
        return bool(self._frames) and self._frames[0][0] <= (trio.current_time() if self._delay_s else 0.0)

    async def _wait(self) -> None:
        if self._frames and not self._held:
            await trio.sleep_until(self._frames[0][0])
        else:
            await self._changed.park()
