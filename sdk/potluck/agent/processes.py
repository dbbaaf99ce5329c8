"""Commands in a sandbox: what they print goes to files there, from which it is read at any offset, also again."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

from potluck.wire.sandbox import KEPT_BYTES, PIECE_BYTES_MAX, STDERR, STDOUT

# What one read of a pipe takes.
READ_BYTES = 64 << 10
# What is put in place of what did not fit on the disk.
LOST = b"\n[potluck: there was no room for more output]\n"
# Of shells, for a command that was ended because its time was over, and by a signal.
TIMED_OUT, KILLED = 124, 137


class Spool:
    """The output of one stream, in a file without a name."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - as long as the process is known
        self._news = threading.Condition()
        self._size, self._ended, self._lost = 0, False, False

    def add(self, data: bytes) -> None:
        with self._news:
            if not self._lost:
                self._write(data)
            self._news.notify_all()

    def _write(self, data: bytes) -> None:
        try:
            self._size += os.pwrite(self._file.fileno(), data, self._size)
        except OSError:
            # The command goes on: it is not to hang since nobody can keep what it prints.
            self._lost = True
            with contextlib.suppress(OSError):
                self._size += os.pwrite(self._file.fileno(), LOST, self._size)

    def end(self) -> None:
        with self._news:
            self._ended = True
            self._news.notify_all()

    def take(self, offset: int, wait_s: float) -> tuple[bytes, bool]:
        """What there is from an offset on, and whether that was the last of it."""
        with self._news:
            self._news.wait_for(lambda: self._ended or offset < self._size, wait_s)
            data = os.pread(self._file.fileno(), PIECE_BYTES_MAX, offset) if offset < self._size else b""
            return data, self._ended and offset + len(data) >= self._size

    def last(self) -> tuple[bytes, int]:
        """The last part, and at which offset it begins."""
        with self._news:
            start = max(0, self._size - KEPT_BYTES)
            return os.pread(self._file.fileno(), KEPT_BYTES, start), start


class Process:
    """Raises `OSError` when it cannot be started."""

    def __init__(
        self, args: Sequence[str], env: Mapping[str, str], workdir: str, timeout_s: float, terminal: bool
    ) -> None:
        self.streams = {STDOUT: Spool(), STDERR: Spool()}
        self.late = False
        self._ended, self._feeding = threading.Event(), threading.Lock()
        self._timer: threading.Timer | None = None
        common: Any = {"cwd": workdir or None, "env": {**os.environ, **env}, "start_new_session": True, "bufsize": 0}
        outs = self._start_on_terminal(args, common) if terminal else self._start(args, common)
        if timeout_s:
            self._timer = threading.Timer(timeout_s, self._expire)
            self._timer.daemon = True
            self._timer.start()
        for file, spool in outs:
            threading.Thread(target=self._pump, args=(file, spool), daemon=True).start()
        for spool in set(self.streams.values()) - {spool for _, spool in outs}:
            spool.end()
        threading.Thread(target=self._wait, daemon=True).start()

    def _start(self, args: Sequence[str], common: Any) -> list[tuple[IO[bytes], Spool]]:
        pipe = subprocess.PIPE
        self._popen = subprocess.Popen(args, stdin=pipe, stdout=pipe, stderr=pipe, **common)
        assert self._popen.stdin
        assert self._popen.stdout
        assert self._popen.stderr
        self._input: IO[bytes] = self._popen.stdin
        return [(self._popen.stdout, self.streams[STDOUT]), (self._popen.stderr, self.streams[STDERR])]

    def _start_on_terminal(self, args: Sequence[str], common: Any) -> list[tuple[IO[bytes], Spool]]:
        ours, theirs = pty.openpty()
        self._input = open(ours, "r+b", buffering=0)  # noqa: SIM115 - as long as the command runs
        try:
            self._popen = subprocess.Popen(args, stdin=theirs, stdout=theirs, stderr=theirs, **common)
        except OSError:
            self._input.close()
            raise
        finally:
            os.close(theirs)
        return [(self._input, self.streams[STDOUT])]

    def _pump(self, source: IO[bytes], spool: Spool) -> None:
        """What it started may still hold its streams: these end when all have closed them."""
        try:
            while data := os.read(source.fileno(), READ_BYTES):
                spool.add(data)
        except OSError:
            # A terminal whose other end is closed says EIO.
            return
        finally:
            spool.end()
            source.close()

    def _wait(self) -> None:
        self._popen.wait()
        if self._timer:
            self._timer.cancel()
        self._ended.set()
        # A terminal's is read to its end, and closed there.
        if self._popen.stdin:
            with self._feeding:
                self._popen.stdin.close()

    def _expire(self) -> None:
        self.late = True
        self.kill()

    def kill(self) -> None:
        """With all that it started, unless that left its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    def wait(self, wait_s: float) -> int | None:
        """Its exit status, None when it still runs."""
        if not self._ended.wait(wait_s):
            return None
        if self.late:
            return TIMED_OUT
        status = self._popen.returncode
        return status if status >= 0 else 128 - status

    def feed(self, data: bytes, end: bool) -> None:
        """Raises `BrokenPipeError` when it takes nothing more."""
        with self._feeding:
            view = memoryview(data)
            while view:
                view = view[os.write(self._input.fileno(), view) :]
            if end and self._popen.stdin:
                self._popen.stdin.close()
            elif end:
                os.write(self._input.fileno(), b"\x04")


def until(deadline: float) -> float:
    """Seconds that are left, at least none."""
    return max(0.0, deadline - time.monotonic())
