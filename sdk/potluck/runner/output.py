"""Everything that user code prints, as `WorkerLog` messages in order.

`sys.stdout` and `sys.stderr` send at each line. File descriptors 1 and 2 are pipes, read by a thread, so that output of
C code and subprocesses arrives too. One lock keeps messages whole; while the node does not read, printing blocks.
"""

from __future__ import annotations

import _thread
import ctypes
import io
import os
import select
import sys

from .codec import LOG_BYTES_MAX, Message, write_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What a pipe holds by default (pipe(7)), bytes: reading this much empties it of all that was written before.
PIPE_BYTES = 64 << 10

STDOUT, STDERR = 1, 2

# What is kept of the output before the first input, bytes: the last pages of it.
HELD_BYTES_MAX = 64 << 10


class Output:
    """The worker's side of its socket. `input` is the number of the running input, 0 for none."""

    def __init__(self, socket: int) -> None:
        self.input = 0
        self._held: _Held | None = None
        self._socket = socket
        self._lock = _thread.allocate_lock()
        self._pipes = {stream: _redirect(stream) for stream in (STDOUT, STDERR)}
        self._streams = {stream: _text_stream(self, stream) for stream in (STDOUT, STDERR)}
        sys.stdout, sys.stderr = self._streams[STDOUT], self._streams[STDERR]
        self._flush_c = ctypes.CDLL(None).fflush
        os.register_at_fork(after_in_child=self._after_fork)
        _thread.start_new_thread(self._read_pipes, ())

    def hold(self) -> None:
        """Keep output until `release`: what no input caused has nobody to read it."""
        self._held = _Held()

    def release(self) -> None:
        """Send what was kept, as output of the input that runs now."""
        with self._lock:
            held, self._held = self._held, None
            for stream, data in held.parts if held else ():
                self._log(stream, data)

    def send(self, message: Message, flush: bool = True) -> None:
        """Send a message, after all output so far, unless that was flushed just now."""
        if flush:
            self.flush()
        if self._socket < 0:
            os._exit(0)  # a copy that user code forked has come to the end of the user's function
        with self._lock:
            write_message(self._socket, message)

    def flush(self) -> None:
        """Send all that was printed so far, by Python, C code and subprocesses."""
        for stream in self._streams.values():
            if not stream.closed:
                stream.flush()
        self._flush_c(None)
        if self._socket < 0:
            return
        with self._lock:
            self._drain()

    def log(self, stream: int, data: bytes) -> None:
        """Send `data`, after what is in the pipes."""
        if self._socket < 0:
            os.write(stream, data)
            return
        with self._lock:
            self._drain()
            self._log(stream, data)

    def _log(self, stream: int, data: bytes) -> None:
        if self._held is not None:
            self._held.add(stream, data)
            return
        for start in range(0, len(data), LOG_BYTES_MAX):
            write_message(self._socket, ["WorkerLog", self.input, stream, data[start : start + LOG_BYTES_MAX]])

    def _drain(self) -> None:
        for stream, pipe in self._pipes.items():
            try:
                data = os.read(pipe, PIPE_BYTES)
            except BlockingIOError:
                continue
            self._log(stream, data)

    def _read_pipes(self) -> None:
        poll = select.poll()
        for pipe in self._pipes.values():
            poll.register(pipe, select.POLLIN)
        try:
            while True:
                poll.poll()
                with self._lock:
                    self._drain()
        except OSError:
            return  # the socket is gone: the node no longer listens

    def _after_fork(self) -> None:
        """A process that user code forked has no share in the socket; its prints go through the pipes."""
        os.close(self._socket)
        self._socket = -1
        self._lock = _thread.allocate_lock()


class _Held:
    """The end of what was printed, in order."""

    def __init__(self) -> None:
        self.parts: list[tuple[int, bytes]] = []
        self._free = HELD_BYTES_MAX

    def add(self, stream: int, data: bytes) -> None:
        self.parts.append((stream, data))
        self._free -= len(data)
        while self._free < 0:
            stream, oldest = self.parts.pop(0)
            kept = oldest[-self._free :]
            self._free += len(oldest) - len(kept)
            if kept:
                self.parts.insert(0, (stream, kept))


class _LogFile(io.RawIOBase):
    """The binary file under `sys.stdout`."""

    def __init__(self, output: Output, stream: int) -> None:
        self._output, self._stream = output, stream

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream

    def write(self, data: Any) -> int:
        view = bytes(data)
        self._output.log(self._stream, view)
        return len(view)


def _text_stream(output: Output, stream: int) -> io.TextIOWrapper:
    raw: Any = _LogFile(output, stream)
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _redirect(stream: int) -> int:
    """Make `stream` the writing end of a pipe; returns the reading end."""
    reading, writing = os.pipe()
    os.dup2(writing, stream)
    os.close(writing)
    os.set_blocking(reading, False)
    return reading
