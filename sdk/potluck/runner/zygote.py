"""The zygote: imports what the function needs once, then forks workers from that state in milliseconds.

It is process 1 of its sandbox: signals from inside cannot end it, it inherits orphans, and its end ends all.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]
import _socket as socket
import ctypes
import gc
import os
import select
import sys
import time

from . import forward, worker
from .codec import (
    FUNCTION_FIELDS,
    PROTOCOL,
    Message,
    check_message,
    read_message,
    unpack,
    write_message,
)
from .failures import Refusal, exception_message
from .function import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .function import Function

# Where the zygote's socket is moved to, so that standard input is free for the user's code.
SOCKET_FD = 3

# A worker is a better victim than the zygote when memory runs out: the others then go on. Range -1000 to 1000.
WORKER_OOM_SCORE = "500"

# How often, and how many seconds apart, forking is tried before the node is told that it cannot be done.
FORK_TRIES, FORK_PAUSE_S = 50, 0.02

# prctl(2): while 0, other processes of the same user cannot read or write this one's memory.
_PR_SET_DUMPABLE = 4

# Control messages are a few dozen bytes: the name of a worker.
_CONTROL_BYTES = 4096
# One descriptor as SCM_RIGHTS carries it: a C int.
_FD_BYTES = 4


def main() -> None:
    """Serve the node on standard input until it closes."""
    _take_socket()
    match read_message(SOCKET_FD):
        case ["StartZygote", int(protocol), list(fields), *_]:
            _serve(protocol, dict(zip(FUNCTION_FIELDS, fields, strict=False)))
        case None:
            return
        case message:
            raise ValueError(f"unexpected message {message!r:.100}")


def _take_socket() -> None:
    os.dup2(0, SOCKET_FD, inheritable=False)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if null != 0:
        os.close(null)


def _serve(protocol: int, spec: dict[str, Any]) -> None:
    started = time.monotonic_ns()
    try:
        _check_protocol(protocol)
        forward.start()
        function = load(spec)
    except Refusal as refusal:
        cause = None if refusal.__cause__ is None else exception_message(refusal.__cause__)
        write_message(SOCKET_FD, ["ZygoteFailed", refusal.message, cause])
        return
    _set_dumpable(False)
    zygote = Zygote(function, spec)
    imports_us = (time.monotonic_ns() - started) // 1000
    version = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    write_message(SOCKET_FD, ["ZygoteReady", PROTOCOL, version, imports_us])
    zygote.serve()


def _check_protocol(protocol: int) -> None:
    if protocol != PROTOCOL:
        older = "image" if protocol > PROTOCOL else "node"
        raise Refusal(
            "version",
            f"The node speaks worker protocol {protocol}, the image's potluck speaks {PROTOCOL}.",
            fix=f"Upgrade potluck in the {older}.",
        )


class Zygote:
    """Forks, kills and reaps workers as the node asks."""

    def __init__(self, function: Function, spec: dict[str, Any]) -> None:
        self._function, self._spec = function, spec
        self._workers: dict[int, str] = {}
        self._socket = socket.socket(fileno=SOCKET_FD)
        self._received = bytearray()
        self._received_fds: list[int] = []
        self._handlers = _take_handlers()
        self._wakeup = _wake_on_child()
        gc.freeze()  # objects of the imports stay shared with the workers instead of being copied at a collection

    def serve(self) -> None:
        """Returns, with all workers killed, when the node closes the socket."""
        poll = select.poll()
        poll.register(SOCKET_FD, select.POLLIN)
        poll.register(self._wakeup, select.POLLIN)
        while self._goes_on({fd for fd, _ in poll.poll()}):
            pass
        for pid in self._workers:
            _kill_worker(pid)

    def _goes_on(self, ready: set[int]) -> bool:
        try:
            if self._wakeup in ready:
                self._reap()
            return SOCKET_FD not in ready or self._receive()
        except (BrokenPipeError, ConnectionResetError):
            return False  # it closed while it was being told something

    def _receive(self) -> bool:
        data, ancillary, _, _ = self._socket.recvmsg(_CONTROL_BYTES, socket.CMSG_SPACE(_FD_BYTES))
        self._received += data
        self._received_fds += [int.from_bytes(fds[:_FD_BYTES], sys.byteorder) for _, _, fds in ancillary]
        while (message := self._next_message()) is not None:
            self._handle(message)
        return bool(data)

    def _next_message(self) -> Message | None:
        size = int.from_bytes(self._received[:4], "big")
        if len(self._received) < 4 or len(self._received) < 4 + size:
            return None
        body = bytes(self._received[4 : 4 + size])
        del self._received[: 4 + size]
        return check_message(unpack(body))

    def _handle(self, message: Message) -> None:
        match message:
            case ["SpawnWorker", str(name), *_]:
                self._spawn(name, lambda fd: worker.run(fd, self._function, self._spec))
            case ["ExecCommand", str(name), list(command), int(rows), int(columns), *_]:
                self._spawn(name, lambda fd: _execute(fd, command, rows, columns))
            case ["KillWorker", str(name), *_]:
                for pid in [pid for pid, other in self._workers.items() if other == name]:
                    _kill_worker(pid)
            case ["InterruptWorker", str(name), bool(last), *_]:
                for pid in [pid for pid, other in self._workers.items() if other == name]:
                    os.kill(pid, signal.SIGTERM if last else signal.SIGINT)
            case _:
                raise ValueError(f"unexpected message {message!r:.100}")

    def _spawn(self, name: str, run: Callable[[int], int | None]) -> None:
        """Fork a process that runs something with the descriptor that came along; it ends with what that returns."""
        fd = self._received_fds.pop(0)
        pid = self._fork()
        if pid is None:
            write_message(SOCKET_FD, ["WorkerExited", name, 1])
            os.close(fd)
            return
        if pid == 0:
            self._become_worker(fd, run)
        os.close(fd)
        self._workers[pid] = name
        write_message(SOCKET_FD, ["WorkerSpawned", name, pid])

    def _fork(self) -> int | None:
        """None at the limit of processes or memory; those of a killed worker take a moment to vanish."""
        for _ in range(FORK_TRIES):
            try:
                return os.fork()
            except OSError:
                time.sleep(FORK_PAUSE_S)
                self._reap()
        return None

    def _become_worker(self, fd: int, run: Callable[[int], int | None]) -> None:
        """In the child; never returns."""
        status = 1
        try:
            self._socket.close()
            self._workers.clear()
            _leave_zygote(self._wakeup, self._handlers)
            status = run(fd) or 0
        except BaseException as error:  # noqa: BLE001 - reported, then the process ends whatever it was
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            os._exit(status)

    def _reap(self) -> None:
        _empty(self._wakeup)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            name = self._workers.pop(pid, None)
            if name is not None:
                _kill_group(pid)
                write_message(SOCKET_FD, ["WorkerExited", name, os.waitstatus_to_exitcode(status)])


def _execute(fd: int, command: list[str], rows: int, columns: int) -> int:
    # Few sandboxes ever need it, and all wait for imports.
    from . import terminal

    return terminal.run(fd, command, rows, columns)


def _kill_worker(pid: int) -> None:
    """Kill a worker that has not been reaped, and its group."""
    _kill_group(pid)
    os.kill(pid, signal.SIGKILL)


def _kill_group(pid: int) -> None:
    """Kill what a worker started, as far as it stayed in its group; the rest ends with the sandbox."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _empty(descriptor: int) -> None:
    try:
        os.read(descriptor, _CONTROL_BYTES)
    except BlockingIOError:
        return


def _wake_on_child() -> int:
    """A descriptor that becomes readable when a child ends."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    return reading


def _take_handlers() -> dict[int, Any]:
    """Remove all signal handlers, also those of imported modules; returns them for the workers.

    The kernel delivers to process 1 only what it handles: without handlers no worker can disturb it.
    """
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    taken: dict[int, Any] = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in taken:
        signal.signal(number, signal.SIG_DFL)
    return taken


def _leave_zygote(wakeup: int, handlers: dict[int, Any]) -> None:
    signal.set_wakeup_fd(-1)
    for number, handler in {signal.SIGCHLD: signal.SIG_DFL, **handlers}.items():
        signal.signal(number, handler)
    os.close(wakeup)
    os.setsid()
    _set_dumpable(True)
    _volunteer_for_oom()
    _reseed()


def _volunteer_for_oom() -> None:
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(WORKER_OOM_SCORE)
    except OSError:
        return  # a hint only


def _reseed() -> None:
    """Give each worker its own random numbers; `random` reseeds itself after a fork, `uuid` has no state."""
    for name in ("numpy.random", "torch"):
        module: Any = sys.modules.get(name)
        if module is not None and hasattr(module, "seed"):
            module.seed()


def _set_dumpable(yes: bool) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, int(yes), 0, 0, 0)
