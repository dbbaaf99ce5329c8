"""Whole frames over a pipe of bytes: a reader that always drains, a writer that never stops half-way."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import trio

from potluck.errors import RemoteProtocolError
from potluck.frames import HEADER, FrameReader
from potluck_node.transport.interface import (
    TRANSPORT_FRAME_BYTES_MAX,
    FrameTooLargeError,
    StreamClosedError,
    TransportError,
)
from potluck_node.transport.queue import FrameQueue

log = logging.getLogger("potluck.transport")

# Bytes asked of the pipe at once.
READ_BYTES = 1 << 20

# Frames waiting for the writer, bytes: one large frame on its way and one behind it. More is the sender's to
# hold back.
OUTGOING_BYTES_MAX = 2 * TRANSPORT_FRAME_BYTES_MAX

# Small frames that wait together are written together, up to this many bytes: one Noise message, or four TLS records.
BATCH_BYTES = 64 << 10

# How long the peer may fill our queue while nobody reads, seconds. Its Yamux gives up after 5; ours is the
# clearer error.
READER_STALL_S = 4.0

# What `aclose` waits for frames that are still to be written, and then for the closing itself; seconds.
FLUSH_S = 2.0
CLOSE_S = 1.0


class Pipe(Protocol):
    """Bytes both ways. Each method may raise whatever the layer below raises."""

    async def read(self, count: int) -> bytes:
        """What has come, at most about `count` bytes; raises at the end."""
        ...

    async def write(self, data: bytes) -> None: ...

    async def close(self) -> None:
        """End both ways; what was written is still read by the other side. Called once."""
        ...


class FramedStream:
    """One stream; `run` does the work and has to be started by whoever makes it."""

    def __init__(self, pipe: Pipe, peer: str, on_end: Callable[[], None] = lambda: None) -> None:
        self._pipe, self._peer, self._on_end = pipe, peer, on_end
        self._incoming = FrameQueue()
        self._outgoing = FrameQueue(limit=OUTGOING_BYTES_MAX)
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    @property
    def peer(self) -> str:
        return self._peer

    async def send(self, frame: bytes) -> None:
        if len(frame) > TRANSPORT_FRAME_BYTES_MAX:
            raise FrameTooLargeError(f"a frame of {len(frame)} bytes is over the limit of {TRANSPORT_FRAME_BYTES_MAX}")
        await self._outgoing.put(HEADER.pack(len(frame)) + frame)

    async def receive(self) -> bytes:
        return await self._incoming.get()

    async def aclose(self) -> None:
        reason = f"this stream with {self._peer} was closed here"
        self._outgoing.close(StreamClosedError(reason))
        self._incoming.close(StreamClosedError(reason), discard=True)
        with trio.move_on_after(FLUSH_S):
            await self._ended.wait()
        self._scope.cancel()

    async def run(self) -> None:
        """Move frames until either side closes. Raises nothing."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read)
                    await self._write()
                    nursery.cancel_scope.cancel()
        finally:
            self._end(StreamClosedError(f"the connection with {self._peer} is gone"))
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
                await self._close_pipe()
            self._ended.set()
            self._on_end()

    def _end(self, error: TransportError) -> None:
        """Nothing more comes or goes; what has arrived can still be read."""
        self._incoming.close(error)
        self._outgoing.close(error, discard=True)

    async def _read(self) -> None:
        frames = FrameReader(TRANSPORT_FRAME_BYTES_MAX)
        try:
            while True:
                for frame in frames.feed(await self._pipe.read(READ_BYTES)):
                    with trio.fail_after(READER_STALL_S):
                        await self._incoming.put(frame)
        except RemoteProtocolError as error:
            self._end(FrameTooLargeError(f"{self._peer} broke the frame rules: {error.what}"))
        except trio.TooSlowError:
            self._end(StreamClosedError(f"{self._peer} sent more than was read here within {READER_STALL_S} s"))
        except StreamClosedError:
            pass
        except Exception as error:  # noqa: BLE001 - a muxer ends a stream with many kinds of exception
            self._end(StreamClosedError(f"{self._peer} closed the stream, or the connection is gone ({error})"))

    async def _write(self) -> None:
        try:
            while True:
                await self._pipe.write(b"".join(await self._outgoing.get_batch(BATCH_BYTES)))
        except StreamClosedError:
            pass
        except Exception as error:  # noqa: BLE001 - as above
            self._end(StreamClosedError(f"{self._peer} does not take what is sent to it ({error})"))

    async def _close_pipe(self) -> None:
        with suppress(Exception):
            await self._pipe.close()
