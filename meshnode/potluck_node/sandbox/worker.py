"""The node's end of one worker's socket."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator

import trio

from potluck import wire
from potluck.errors import RemoteProtocolError
from potluck.frames import FRAME_BYTES_MAX, MessageReader, Outbox, Piece, encode_frame
from potluck.wire.contents import join, split
from potluck.wire.state import REQUEST_BYTES_MAX, StateAsked
from potluck.wire.worker import LOG_BYTES_MAX, FromWorker, InputSucceeded, ToWorker, WorkerLog
from potluck_node.payloads import NodeSpool
from potluck_node.sandbox.interface import SPAWN_TIMEOUT_S, WorkerEnded

# One read of the socket: what a Unix socket holds by default.
READ_BYTES = 256 << 10

# How long a worker whose connection is broken may take to be reported dead, seconds; then its zygote is stuck.
END_TIMEOUT_S = SPAWN_TIMEOUT_S


class SocketWorker:
    """A `Worker` (see `interface`). `kill_by_name` asks the zygote to kill it, `interrupt_by_name` to signal it.

    With `descriptors` it is sent large payloads in sealed memory. From it none is taken: what it sends is written to
    memory of the node's, since its own would count for it as long as anybody keeps the result.
    """

    def __init__(
        self, name: str, channel: socket.socket, kill_by_name: Callable[[str], None], descriptors: bool = True,
        interrupt_by_name: Callable[[str, bool], None] = lambda name, last: None,
    ) -> None:  # fmt: skip
        self.name, self.pid = name, 0
        self.born = trio.Event()
        self._channel, self._descriptors = channel, descriptors
        self._socket = trio.socket.from_stdlib_socket(channel)
        self._kill_by_name, self._interrupt_by_name = kill_by_name, interrupt_by_name
        self._reader = MessageReader(NodeSpool, FRAME_BYTES_MAX)
        self._bodies: deque[tuple[bytes, list[memoryview]]] = deque()
        self._violation = ""
        self._at_end = self._reading = False
        self._ended = trio.Event()
        self._end: tuple[int, str] | None = None
        self._send_lock = trio.Lock()

    @property
    def running(self) -> bool:
        return self.born.is_set() and self._end is None

    def start(self, pid: int) -> None:
        """The zygote says that it has forked it."""
        self.pid = pid
        self.born.set()

    def end(self, status: int, reason: str) -> None:
        """It is gone. What it had sent can still be received; a process that it left behind cannot add to that."""
        if self._end is None:
            self._end = (status, reason)
            if self._reading:
                self._close_to_others()  # the reader takes the rest, after what it holds
            else:
                self._take_rest()
            self.born.set()
            self._ended.set()

    @property
    def sending(self) -> bool:
        return self._send_lock.locked()

    def send_now(self, message: ToWorker) -> memoryview | None:
        rest = memoryview(encode_frame(wire.encode(message)))
        try:
            return rest[self._channel.send(rest, socket.MSG_DONTWAIT) :] or None
        except BlockingIOError:
            return rest
        except OSError:
            return None  # its end is told elsewhere

    async def send_rest(self, rest: memoryview) -> None:
        await self._send_pieces(iter((Piece(rest),)))

    async def send(self, message: ToWorker) -> None:
        left, contents = split(message)
        outbox = Outbox()
        outbox.add(wire.encode(left), contents, self._descriptors)
        await self._send_pieces(iter(outbox.next, None))

    async def _send_pieces(self, pieces: Iterator[Piece]) -> None:
        async with self._send_lock:
            torn = False
            try:
                for piece in pieces:
                    rest, descriptor = memoryview(piece.data), piece.descriptor
                    while rest:
                        rest = rest[await self._send(rest, descriptor) :]
                        torn, descriptor = True, -1
                torn = False
            except (OSError, trio.ClosedResourceError):
                raise await self._ending() from None
            finally:
                if torn:
                    self._kill_by_name(self.name)

    async def _send(self, data: memoryview, descriptor: int) -> int:
        if descriptor < 0:
            return await self._socket.send(data)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", descriptor))
        return await self._socket.sendmsg([data], [rights])

    async def receive(self) -> FromWorker:
        while not self._bodies:
            if self._violation or self._at_end:
                raise await self._ending()
            await self._read()
        return await self._checked(*self._bodies.popleft())

    async def interrupt(self, last: bool = False) -> None:
        self._interrupt_by_name(self.name, last)
        await trio.lowlevel.checkpoint()

    async def kill(self) -> None:
        self._kill_by_name(self.name)
        await trio.lowlevel.checkpoint()

    async def _read(self) -> None:
        self._reading, data = True, b""
        try:
            data = await self._socket.recv(READ_BYTES)
        except (OSError, trio.ClosedResourceError):
            self._at_end = True
        finally:
            self._reading = False
            self._cut(data)
            if self._end is not None:
                self._take_rest()
        self._at_end = self._at_end or not data

    def _cut(self, data: bytes) -> None:
        try:
            self._bodies.extend(self._reader.feed(data))
        except RemoteProtocolError as error:
            self._violation = f"{error.what} {error.why}".strip()

    async def _checked(self, body: bytes, contents: list[memoryview]) -> FromWorker:
        try:
            message: FromWorker = join(wire.decode(body, FromWorker), contents)
            _check(message)
        except RemoteProtocolError as error:
            self._violation = f"{error.what} {error.why}".strip()
            self._bodies.clear()
            raise await self._ending() from None
        return message

    async def _ending(self) -> WorkerEnded:
        """Make sure that it is dead, and say why. A worker may have closed its socket and live on."""
        self._kill_by_name(self.name)
        with trio.move_on_after(END_TIMEOUT_S):
            await self._ended.wait()
        status, reason = self._end or (-9, "it closed its connection and could not be killed")
        return WorkerEnded(status, f"broke the protocol: {self._violation}" if self._violation else reason)

    def _take_rest(self) -> None:
        """Take over what the socket still holds, which the kernel bounds, and close it."""
        self._close_to_others()
        with contextlib.suppress(OSError):
            while data := self._channel.recv(READ_BYTES, socket.MSG_DONTWAIT):
                self._cut(data)
        self._at_end = True
        self._reader.close()
        self._socket.close()

    def _close_to_others(self) -> None:
        """What was sent can still be read."""
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)


def _check(message: FromWorker) -> None:
    """Raises `RemoteProtocolError` for what the runner never sends."""
    if isinstance(message, WorkerLog) and (len(message.data) > LOG_BYTES_MAX or message.stream not in (1, 2)):
        raise RemoteProtocolError("A log message is too long, or of no known stream.")
    if isinstance(message, StateAsked) and len(message.payload) > REQUEST_BYTES_MAX:
        raise RemoteProtocolError(f"A request for shared state of {len(message.payload)} bytes is over the limit.")
    if isinstance(message, InputSucceeded) and len(message.payload) > wire.PAYLOAD_BYTES_MAX:
        raise RemoteProtocolError(f"A result of {len(message.payload)} bytes is over the limit.")
