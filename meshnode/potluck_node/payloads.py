"""Large payloads in this node: within a budget, with their digests, over sockets that carry descriptors."""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
import weakref
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio
from blake3 import blake3

from potluck.frames import ANCILLARY_BYTES, Piece
from potluck.runner.memory import Spool, sealed

if TYPE_CHECKING:
    from potluck.runner.memory import Buffer

READ_BYTES = 256 << 10

# So much of a payload is hashed without leaving the event loop: about a millisecond. More goes to a thread.
HASHED_AT_ONCE_BYTES = 4 << 20


class Room:
    """How much may be held for others at once, in bytes."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0

    def take(self, size: int) -> None:
        """Raises `OSError` when that is too much."""
        if self.used + size > self.limit:
            why = f"this node holds {self.used >> 20} MiB of arguments and results already"
            raise OSError(errno.ENOMEM, f"{why}; its limit is {self.limit >> 20} MiB")
        self.used += size

    def give_back(self, size: int) -> None:
        self.used -= size


def _half_of_memory() -> int:
    """The other half is for workers; no less than one payload."""
    return max(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2, 2 << 30)


ROOM = Room(_half_of_memory())


class NodeSpool(Spool):
    """Memory for what comes through a stream, hashed on the way while it is still in the processor's cache."""

    def __init__(self, room: Room = ROOM) -> None:
        self._room, self._hash = room, blake3()
        super().__init__()

    def write(self, data: Buffer) -> None:
        self._room.take(len(data))
        self._hash.update(data)
        super().write(data)

    def seal(self) -> memoryview:
        view = super().seal()
        found = sealed(view)
        assert found
        found.digest = self._hash.digest()
        weakref.finalize(found, self._room.give_back, self.size).atexit = False
        self.size = 0
        return view

    def close(self) -> None:
        super().close()
        self._room.give_back(self.size)
        self.size = 0

    __del__ = close


async def digest_all(payloads: Sequence[memoryview]) -> None:
    """Know the digest of each before anybody on the event loop asks for it."""
    for payload in payloads:
        found = sealed(payload)
        if found and not found.digest and len(payload) > HASHED_AT_ONCE_BYTES:
            found.digest = await trio.to_thread.run_sync(_digest, payload)


def _digest(payload: memoryview) -> bytes:
    return blake3(payload, max_threads=blake3.AUTO).digest()


async def receive(stream: trio.SocketStream, descriptors: deque[int]) -> bytes:
    """The next bytes, none at the end; descriptors that come along are added to `descriptors`."""
    try:
        data, ancillary, _, _ = await stream.socket.recvmsg(READ_BYTES, ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
    except OSError as error:
        raise trio.BrokenResourceError from error
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.extend(array.array("i", content[: len(content) // 4 * 4]))
    return data


async def send_piece(stream: trio.SocketStream, piece: Piece) -> None:
    """Raises `trio.BrokenResourceError`."""
    data = piece.data
    if piece.descriptor >= 0:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", piece.descriptor))
        try:
            data = data[await stream.socket.sendmsg([data], [rights]) :]
        except OSError as error:
            raise trio.BrokenResourceError from error
    await stream.send_all(data)
