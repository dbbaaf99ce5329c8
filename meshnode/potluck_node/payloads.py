"""Large payloads in this node: within a budget, with their digests, over sockets that carry descriptors."""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
import threading
import weakref
from collections import Counter, deque
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


# A peer is granted no more once it holds three times what is still free: alone it gets three quarters, two get three
# sevenths each, and there is always some left for one that comes. The rule is that of shared-memory switches
# (Choudhury and Hahne, "Dynamic queue length thresholds", 1998).
SHARE_OVER_FREE = 3


class Room:
    """How much may be held for others at once, in bytes. Threads and finalizers may call it."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self._held: Counter[str] = Counter()
        # A finalizer may run within any of these methods.
        self._lock = threading.RLock()

    def take(self, size: int, peer: str = "") -> None:
        """Raises `OSError` when that is too much."""
        with self._lock:
            if self.used + size > self.limit:
                raise OSError(errno.ENOMEM, self.why_full())
            self.used += size
            self._held[peer] += size

    def give_back(self, size: int, peer: str = "") -> None:
        with self._lock:
            self.used -= size
            self._held[peer] -= size
            if not self._held[peer]:
                del self._held[peer]

    def full_for(self, peer: str) -> bool:
        """Whether the peer should send nothing more until something was given back."""
        with self._lock:
            return self._held[peer] > SHARE_OVER_FREE * (self.limit - self.used)

    def why_full(self) -> str:
        """In words."""
        held, limit = self.used >> 20, self.limit >> 20
        return f"this node holds {held} MiB of arguments and results already; its limit is {limit} MiB"


def _half_of_memory() -> int:
    """The other half is for workers; no less than one payload."""
    return max(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2, 2 << 30)


ROOM = Room(_half_of_memory())


class NodeSpool(Spool):
    """Memory for what comes through a stream, hashed on the way while it is still in the processor's cache."""

    def __init__(self, room: Room = ROOM, peer: str = "") -> None:
        self._room, self._peer, self._hash = room, peer, blake3()
        super().__init__()

    def write(self, data: Buffer) -> None:
        self._room.take(len(data), self._peer)
        self._hash.update(data)
        super().write(data)

    def seal(self) -> memoryview:
        view = super().seal()
        found = sealed(view)
        assert found
        found.digest = self._hash.digest()
        weakref.finalize(found, self._room.give_back, self.size, self._peer).atexit = False
        self.size = 0
        return view

    def close(self) -> None:
        super().close()
        self._room.give_back(self.size, self._peer)
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
