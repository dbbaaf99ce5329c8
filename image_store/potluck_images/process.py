"""Programs that a build runs: each line goes to the user as it comes, and none outlives its build."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from potluck_images.errors import ImageBuildError
from potluck_images.secrecy import NOTHING_HIDDEN, Mask

# How often the caller may cancel while the program is silent.
HEARTBEAT_S = 0.5
# Shown when the program fails.
LAST_LINES = 20
# A longer line is cut: a progress bar without line ends, or a flood.
LINE_BYTES_MAX = 4 << 10
# Waits until nobody holds its standard input open, and kills a group: else what a program had started, that was itself
# still starting, would outlive a node that is killed.
_GUARD = 'read -r _; kill -s KILL -- "-$1"'
# Lines read and not yet said; then the program waits.
_LINES_AHEAD_MAX = 1000

Say = Callable[[str], None]


@dataclass(frozen=True)
class Ended:
    """`status` is the exit code, or minus a signal number; `lines` are the last ones printed."""

    status: int
    lines: tuple[str, ...]


def run(
    command: Sequence[str],
    say: Say,
    timeout_s: float,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    handed: Sequence[int] = (),
    watch: Callable[[int], None] = lambda pid: None,
    mask: Mask = NOTHING_HIDDEN,
) -> Ended:
    """Run to the end. `say` receives lines, and the last one again while the program is silent; `watch` is called with
    its pid about twice a second. What either raises ends the program, and so does the time limit (`ImageBuildError`).
    No line shows what `mask` hides.
    """
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        pass_fds=handed,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    guard = subprocess.Popen(
        ["sh", "-c", _GUARD, "sh", str(process.pid)], stdin=subprocess.PIPE, start_new_session=True
    )
    lines: queue.Queue[str | None] = queue.Queue(_LINES_AHEAD_MAX)
    stopped = threading.Event()
    reader = threading.Thread(target=_read_lines, args=(process, lines, stopped, mask), daemon=True)
    reader.start()
    try:
        last = _follow(lines, say, timeout_s, lambda: watch(process.pid))
        # Not reaped yet, so that its group is still its own.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    finally:
        stopped.set()
        guard.kill()
        guard.communicate()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join()
    return Ended(process.returncode, last)


def _read_lines(
    process: subprocess.Popen[bytes], lines: queue.Queue[str | None], stopped: threading.Event, mask: Mask
) -> None:
    assert process.stdout
    rest = b""
    with process.stdout as stdout:
        while line := stdout.readline(LINE_BYTES_MAX):
            # Where a long line is cut, a secret may be cut too.
            shown, rest = (mask(rest + line), b"") if line.endswith(b"\n") else mask.split(rest + line)
            _put(lines, shown.decode(errors="replace").rstrip(), stopped)
    if rest:
        _put(lines, rest.decode(errors="replace"), stopped)
    _put(lines, None, stopped)


def _put(lines: queue.Queue[str | None], line: str | None, stopped: threading.Event) -> None:
    while not stopped.is_set():
        try:
            lines.put(line, timeout=HEARTBEAT_S)
            return
        except queue.Full:
            continue


def _follow(lines: queue.Queue[str | None], say: Say, timeout_s: float, watch: Callable[[], None]) -> tuple[str, ...]:
    last: deque[str] = deque(maxlen=LAST_LINES)
    deadline = time.monotonic() + timeout_s
    watch_at = time.monotonic() + HEARTBEAT_S
    while time.monotonic() < deadline:
        if time.monotonic() >= watch_at:
            watch()
            watch_at = time.monotonic() + HEARTBEAT_S
        try:
            line = lines.get(timeout=HEARTBEAT_S)
        except queue.Empty:
            say(last[-1] if last else "")
            continue
        if line is None:
            return tuple(last)
        last.append(line)
        say(line)
    raise ImageBuildError(f"A build step was stopped after {timeout_s:.0f} s.", why="\n".join(last))
