"""One stream of a muxer, as a pipe."""

from __future__ import annotations

from contextlib import suppress
from typing import Any


class MuxedPipe:
    """A raw libp2p stream."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def read(self, count: int) -> bytes:
        return bytes(await self._stream.muxed_stream.read(count))

    async def write(self, data: bytes) -> None:
        await self._stream.muxed_stream.write(data)

    async def close(self) -> None:
        # First the regular end, so that the peer reads all that was sent; then the reset, since nobody reads
        # here.
        with suppress(Exception):
            await self._stream.muxed_stream.close()
        await self._stream.reset()
