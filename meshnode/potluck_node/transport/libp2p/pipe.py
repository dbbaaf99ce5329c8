"""One stream of a muxer, as a pipe."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from potluck_node.transport.framed import Pipe
from potluck_node.transport.interface import TransportError

# What streams of one protocol carry to one peer through a relay, both ways together, until the circuit was idle for a
# while; bytes. Arguments, logs, sources and the interpreter of a default image (31 MB) pass; a model does not.
RELAYED_BYTES_MAX = 64 << 20


class Budget:
    """What is left of it."""

    def __init__(self) -> None:
        self.left = RELAYED_BYTES_MAX

    def check(self) -> None:
        """Raises `TransportError` when all is used up."""
        if self.left < 0:
            limit = RELAYED_BYTES_MAX >> 20
            raise TransportError(
                f"it is reached through a relay alone, which carries {limit} MiB and no more;"
                " `potluck doctor` there says how it could be reached directly"
            )


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


class RelayedPipe:
    """A stream that goes through a relay: raises `TransportError` when its budget is used up."""

    def __init__(self, pipe: Pipe, budget: Budget) -> None:
        self._pipe, self._budget = pipe, budget

    async def read(self, count: int) -> bytes:
        data = await self._pipe.read(count)
        self._count(data)
        return data

    async def write(self, data: bytes) -> None:
        self._count(data)
        await self._pipe.write(data)

    async def close(self) -> None:
        await self._pipe.close()

    def _count(self, data: bytes) -> None:
        self._budget.left -= len(data)
        self._budget.check()
