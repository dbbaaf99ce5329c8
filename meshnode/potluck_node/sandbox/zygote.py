"""The node's end of a sandbox: the zygote's socket and those of its workers. Independent of how the sandbox is made.

Everything that arrives is checked: size, form, and what may be said. A worker that breaks a rule is killed; a zygote
that does loses its sandbox.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, NoReturn, Protocol

import trio

from potluck import wire
from potluck.errors import Error, RemoteProtocolError, SandboxError
from potluck.frames import FrameReader, encode_frame
from potluck.wire.common import FunctionSpec
from potluck.wire.worker import (
    ExecCommand,
    FromZygote,
    InterruptWorker,
    KillWorker,
    SpawnWorker,
    StartZygote,
    WorkerExited,
    WorkerSpawned,
    ZygoteFailed,
    ZygoteReady,
)
from potluck_node.sandbox.interface import CLOSE_TIMEOUT_S, SPAWN_TIMEOUT_S, START_TIMEOUT_S
from potluck_node.sandbox.worker import SocketWorker

if TYPE_CHECKING:
    from trio_typing import TaskStatus

# Largest message of a zygote, bytes: a failure with a traceback (64 KiB) and a pickled exception (1 MiB).
ZYGOTE_FRAME_BYTES_MAX = 4 << 20

# Control messages on their way to a zygote that does not read: more than it can have workers.
OUTBOX_MAX = 1024

READ_BYTES = 64 << 10

_NAME_MAX = 256


class Box(Protocol):
    """The sandbox's processes, as `box.Box` holds them."""

    @property
    def pid(self) -> int: ...
    @property
    def descriptors(self) -> bool: ...
    def kill(self) -> None: ...
    async def wait(self) -> int: ...
    async def read_log(self) -> None: ...
    async def watch_memory(self) -> None: ...
    def diagnosis(self) -> str: ...
    def out_of_memory(self) -> str: ...
    async def destroy(self) -> None: ...


class _Command:
    """One that runs beside the workers."""

    def __init__(self) -> None:
        self.ended, self.status = trio.Event(), 0

    def end(self, status: int) -> None:
        self.status = status
        self.ended.set()


class SocketZygote:
    """A `Zygote` (see `interface`) at the other end of `channel`."""

    def __init__(self, box: Box, channel: socket.socket) -> None:
        self._box = box
        self._socket = trio.socket.from_stdlib_socket(channel)
        self._workers: dict[str, SocketWorker] = {}
        self._commands: dict[str, _Command] = {}
        self._send_outbox, self._outbox = trio.open_memory_channel[tuple[bytes, socket.socket | None]](OUTBOX_MAX)
        self._answer: ZygoteReady | ZygoteFailed | None = None
        self._answered = trio.Event()
        self._reader_done = trio.Event()
        self._ended = trio.Event()
        self._reason = ""

    @property
    def ready(self) -> ZygoteReady:
        assert isinstance(self._answer, ZygoteReady)
        return self._answer

    @property
    def host_pid(self) -> int:
        return self._box.pid

    @property
    def opened(self) -> bool:
        """Whether it waits for its function."""
        return self._answer is None and not self._reason and not self._ended.is_set()

    @property
    def alive(self) -> bool:
        return isinstance(self._answer, ZygoteReady) and not self._reason and not self._ended.is_set()

    async def wait_ended(self) -> str:
        await self._ended.wait()
        return self._reason

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the sandbox until it ends; afterwards nothing of it is left."""
        try:
            async with trio.open_nursery() as tasks:
                for task in (self._box.read_log, self._box.watch_memory, self._read, self._write):
                    tasks.start_soon(task)
                task_status.started()
                status = await self._box.wait()
                with trio.move_on_after(CLOSE_TIMEOUT_S):
                    await self._reader_done.wait()
                self._end_because(self._box.out_of_memory() or describe_status(status))
                tasks.cancel_scope.cancel()
        finally:
            self._end_because("closed")
            await self._box.destroy()
            self._finish()

    async def start(self, function: FunctionSpec) -> None:
        """Have the function imported. Raises what the zygote reports, or `SandboxError`; the sandbox is closed then."""
        try:
            await self._start(function)
        except BaseException:
            await self.aclose()
            raise

    async def _start(self, function: FunctionSpec) -> None:
        self._post(wire.encode(StartZygote(wire.PROTOCOL, function)))
        with trio.move_on_after(START_TIMEOUT_S):
            await self._answered.wait()
        if isinstance(self._answer, ZygoteFailed):
            raise _failure(self._answer)
        if self._answer is None:
            await self._raise_not_started()
        if self._answer is not None and self._answer.protocol != wire.PROTOCOL:
            raise SandboxError("The image's potluck speaks another protocol.", fix="Rebuild the image.")

    async def spawn(self, worker: str) -> SocketWorker:
        if worker in self._workers or not 0 < len(worker) <= _NAME_MAX:
            raise ValueError(f"{worker!r} is taken, empty or too long as a name of a worker")
        if not self.alive:
            self._raise_not_spawned()
        ours, theirs = socket.socketpair()
        spawned = self._workers[worker] = SocketWorker(
            worker, ours, self._kill_worker, self._box.descriptors, self._interrupt_worker
        )
        self._post(wire.encode(SpawnWorker(worker)), theirs)
        try:
            with trio.move_on_after(SPAWN_TIMEOUT_S):
                await spawned.born.wait()
            if not spawned.running:
                self._raise_not_spawned()
        except BaseException:
            self._give_up(spawned)
            raise
        return spawned

    async def execute(self, name: str, command: Sequence[str], size: tuple[int, int], channel: socket.socket) -> int:
        if not self.alive:
            channel.close()
            raise SandboxError("The sandbox has ended.", why=self._reason)
        running = self._commands[name] = _Command()
        self._post(wire.encode(ExecCommand(name, tuple(command), *size)), channel)
        try:
            await running.ended.wait()
        finally:
            del self._commands[name]
            if not running.ended.is_set():
                self._post(wire.encode(KillWorker(name)))
        return running.status

    async def aclose(self) -> None:
        self._end_because("closed")
        self._box.kill()
        with trio.move_on_after(CLOSE_TIMEOUT_S) as scope:
            scope.shield = True
            await self._ended.wait()

    def _give_up(self, worker: SocketWorker) -> None:
        """Should it be forked after all, it ends at once: its socket is closed."""
        self._workers.pop(worker.name, None)
        worker.end(-signal.SIGKILL, "never started")

    def _post(self, body: bytes, handed: socket.socket | None = None) -> None:
        """Queue a control message; the socket that travels with it is closed here in any case."""
        try:
            self._send_outbox.send_nowait((encode_frame(body), handed))
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            if handed is not None:
                handed.close()
            self._box.kill()

    def _kill_worker(self, name: str) -> None:
        if name in self._workers:
            self._post(wire.encode(KillWorker(name)))

    def _interrupt_worker(self, name: str, last: bool) -> None:
        if name in self._workers:
            self._post(wire.encode(InterruptWorker(name, last)))

    async def _write(self) -> None:
        async for frame, handed in self._outbox:
            try:
                await self._send(memoryview(frame), handed)
            except OSError:
                return  # it is gone; `serve` notices
            finally:
                if handed is not None:
                    handed.close()

    async def _send(self, frame: memoryview, handed: socket.socket | None) -> None:
        if handed is not None:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, handed.fileno().to_bytes(4, "little"))
            frame = frame[await self._socket.sendmsg([frame], [rights]) :]
        while frame:
            frame = frame[await self._socket.send(frame) :]

    async def _read(self) -> None:
        frames = FrameReader(ZYGOTE_FRAME_BYTES_MAX)
        try:
            while data := await self._socket.recv(READ_BYTES):
                for body in frames.feed(data):
                    self._handle(wire.decode(body, FromZygote))
        except RemoteProtocolError as error:
            self._end_because(f"its zygote broke the protocol: {error.what}")
        except OSError:
            pass  # reset: it is gone
        finally:
            self._reader_done.set()
            self._box.kill()

    def _handle(self, message: FromZygote) -> None:
        match message:
            case ZygoteReady() | ZygoteFailed() if self._answer is None:
                self._answer = message
                self._answered.set()
            case WorkerSpawned(worker, pid) if worker in self._workers:
                self._workers[worker].start(pid)
            case WorkerExited(worker, status) if worker in self._workers:
                oom = self._box.out_of_memory() if status == -9 else ""
                self._workers.pop(worker).end(status, oom or describe_status(status))
            case WorkerExited(name, status) if name in self._commands:
                self._commands[name].end(status)
            case WorkerSpawned() | WorkerExited():
                pass  # of a spawn that was given up
            case _:
                raise RemoteProtocolError(f"an unexpected {type(message).__name__}")

    def _end_because(self, reason: str) -> None:
        """The first reason counts."""
        self._reason = self._reason or reason

    def _finish(self) -> None:
        self._socket.close()
        self._send_outbox.close()
        while self._outbox.statistics().current_buffer_used:
            _, handed = self._outbox.receive_nowait()
            if handed is not None:
                handed.close()
        for worker in list(self._workers.values()):
            worker.end(-signal.SIGKILL, f"its sandbox ended: {self._reason}")
        self._workers.clear()
        for command in self._commands.values():
            command.end(-signal.SIGKILL)
        self._answered.set()
        self._ended.set()

    async def _raise_not_started(self) -> NoReturn:
        if not self._ended.is_set():
            self._end_because(f"its imports took longer than {START_TIMEOUT_S:.0f} s")
            await self.aclose()
        raise SandboxError(
            f"The sandbox ended before it was ready: {self._reason}.",
            why=self._box.diagnosis() or "It printed nothing.",
            fix="Check that the image has a working Python, and that the function's imports end.",
        )

    def _raise_not_spawned(self) -> NoReturn:
        raise SandboxError(
            "The sandbox could not fork another worker.",
            why=self._reason or "It is at its limit of processes or memory, or its zygote is stuck.",
            fix="Give the function more memory, or fewer inputs at once.",
        )


async def open_zygote(nursery: trio.Nursery, start_box: Callable[[socket.socket], Awaitable[Box]]) -> SocketZygote:
    """A sandbox whose interpreter waits for its function. `start_box` starts it with its end of a new socket.

    Nothing is left when this raises.
    """
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            started = await start_box(theirs)
    except BaseException:
        ours.close()
        raise
    zygote = SocketZygote(started, ours)
    try:
        await nursery.start(zygote.serve)
    except BaseException:
        await zygote.aclose()
        await started.destroy()
        raise
    return zygote


def describe_status(status: int) -> str:
    """An exit status in words; negative is a signal."""
    if status >= 0:
        return f"exit {status}"
    try:
        return f"killed by signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"killed by signal {-status}"


def _failure(answer: ZygoteFailed) -> Error:
    """The error that the zygote reports, with the user's traceback in its `why`."""
    error = answer.failure.error()
    if answer.exception is not None:
        error.why = "\n".join(part for part in (error.why, answer.exception.traceback) if part)
    return error
