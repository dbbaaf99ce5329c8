"""One sandbox's processes as the node holds them: started behind a gate, put under limits, killed and reaped as one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence

import trio

from potluck.errors import SandboxError
from potluck_node.sandbox import memory, rlimits
from potluck_node.sandbox.cgroups import Group
from potluck_node.sandbox.interface import CLOSE_TIMEOUT_S, Limits

# The last bytes that the sandbox's own processes (bwrap, the interpreter, imports) printed; shown when it fails.
DIAGNOSIS_BYTES = 8 << 10

# How long making the namespaces may take until the first process is known, seconds: it takes 10 ms.
BIRTH_TIMEOUT_S = 10.0

# How long, and how often, removing a group is tried after its last process was reaped, seconds.
REMOVE_TIMEOUT_S, REMOVE_PAUSE_S = 0.5, 0.01

READ_BYTES = 64 << 10

# How often, and how many seconds apart, it is looked whether bwrap has stopped: it does within microseconds.
STOP_TRIES, STOP_PAUSE_S = 20, 0.0002


class Box:
    """The outer process (the launcher's program) and the inner one (process 1 of the sandbox).

    With `descriptors`, what is inside can map sealed memory that it is sent.
    """

    descriptors = True

    def __init__(self, outer: subprocess.Popen[bytes], log: int, group: Group | None, limits: Limits) -> None:
        self._outer = outer
        self._outer_fd = os.pidfd_open(outer.pid)
        self._inner: tuple[int, int] | None = None  # (pid, its pidfd)
        self._log = log
        self._group, self._limits = group, limits
        self._tail = bytearray()
        self._ooms_seen = 0
        self._sampled_out = False

    @property
    def pid(self) -> int:
        """Process 1 of the sandbox as the host sees it; 0 when it is gone."""
        return self._inner[0] if self._inner else 0

    def admit(self, pid: int) -> None:
        """Put process 1, which waits at the gate, under the limit that it cannot enter itself.

        Raises `SandboxError`.
        """
        try:
            self._inner = (pid, os.pidfd_open(pid))
            self._limit_processes(pid)
        except (OSError, subprocess.SubprocessError) as error:
            raise SandboxError("The limits of a sandbox could not be set.", why=str(error)) from None

    def _limit_processes(self, pid: int) -> None:
        counted = self._group is not None and self._group.limits_processes
        rlimits.limit_processes(pid, self._limits.pids, needed=not counted)

    def kill(self) -> None:
        """End every process in the sandbox, at once. Idempotent."""
        if self._inner is None and self._outer_fd >= 0:
            self._kill_unborn()
        for descriptor in (self._inner[1] if self._inner else -1, self._outer_fd):
            if descriptor >= 0:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)

    def _kill_unborn(self) -> None:
        """Before process 1 is known, it waits for bwrap, and not for bwrap's end. bwrap is stopped first, so that it
        has no child after we looked."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._outer_fd, signal.SIGSTOP)
        for _ in range(STOP_TRIES):
            if memory.state(self._outer.pid) in ("T", "Z", ""):
                break
            time.sleep(STOP_PAUSE_S)
        for pid in memory.descendants(self._outer.pid)[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def wait(self) -> int:
        """Wait until no process is left; returns the exit status.

        Process 1 is gone last: its end includes that of its namespaces, and the freeing of what lay in its folders.
        """
        while self._outer.poll() is None and self._outer_fd >= 0:
            await trio.lowlevel.wait_readable(self._outer_fd)
        if self._inner is not None:
            await trio.lowlevel.wait_readable(self._inner[1])
        return -signal.SIGKILL if self._outer.returncode is None else self._outer.returncode

    async def read_log(self) -> None:
        """Keep the last of what the sandbox's own processes print; runs until they are gone."""
        while True:
            await trio.lowlevel.wait_readable(self._log)
            data = os.read(self._log, READ_BYTES)
            if not data:
                return
            self._tail += data
            del self._tail[:-DIAGNOSIS_BYTES]

    async def watch_memory(self) -> None:
        """Where no group limits memory: kill the sandbox when it uses too much."""
        if self._inner is None or (self._group is not None and self._group.limits_memory):
            return
        while memory.used_mib(self._inner[0]) <= self._limits.memory_mib:  # noqa: ASYNC110 - nothing tells us
            await trio.sleep(memory.SAMPLE_S)
        self._sampled_out = True
        self.kill()

    def diagnosis(self) -> str:
        return self._tail.decode("utf-8", "replace").strip()

    def out_of_memory(self) -> str:
        """Why a process was killed just now, if it was for memory; else empty. Each kill is told once."""
        kills = self._group.oom_kills() if self._group is not None else 0
        if not self._sampled_out and kills <= self._ooms_seen:
            return ""
        self._ooms_seen = kills
        return f"out of memory: limit {self._limits.memory_mib} MiB"

    async def destroy(self) -> None:
        """Kill, reap, and remove all traces; takes at most `CLOSE_TIMEOUT_S`, and cannot be cancelled."""
        self.kill()
        with trio.move_on_after(CLOSE_TIMEOUT_S) as scope:
            scope.shield = True
            await self.wait()
        with trio.CancelScope(shield=True):
            await self._remove_group()
        self._close()

    async def _remove_group(self) -> None:
        """A group is free shortly after its last process was reaped; one that is not is tried again later."""
        if self._group is None:
            return
        self._group.kill()
        with trio.move_on_after(REMOVE_TIMEOUT_S):
            while not self._group.remove():  # noqa: ASYNC110 - nothing tells us
                await trio.sleep(REMOVE_PAUSE_S)
            return
        self._group.remove_later()

    def _close(self) -> None:
        descriptors = [self._outer_fd, self._log] + ([self._inner[1]] if self._inner else [])
        self._outer_fd, self._log, self._inner = -1, -1, None
        for descriptor in descriptors:
            if descriptor >= 0:
                os.close(descriptor)


async def start(
    command: Sequence[str],
    handed: Sequence[int],
    stdin: socket.socket,
    group: Group | None,
    limits: Limits,
    kind: type[Box] = Box,
) -> Box:
    """Start `command`, which must take `--info-fd` and `--block-fd` as bubblewrap does, in that order as its last two
    descriptors; `{info}` and `{gate}` in it are replaced. Raises `SandboxError`; nothing is left then.

    The program is started from this thread, not a helper thread: it dies with the thread that started it
    (PR_SET_PDEATHSIG), and trio's helper threads end when idle.
    """
    with contextlib.ExitStack() as ours:
        info_r, info_w = _pipe(ours)
        gate_r, gate_w = _pipe(ours)
        log_r, log_w = os.pipe()
        ours.callback(os.close, log_w)
        filled = [part.replace("{info}", str(info_w)).replace("{gate}", str(gate_r)) for part in command]
        outer = _popen(filled, (*handed, info_w, gate_r), stdin, log_w, log_r)
        box = kind(outer, log_r, group, limits)
        ours.pop_all()
    for descriptor in (info_w, gate_r, log_w):
        os.close(descriptor)
    try:
        await _admit(box, info_r)
        os.write(gate_w, b"\0")
    except BaseException:
        await box.destroy()
        raise
    finally:
        os.close(info_r)
        os.close(gate_w)
    return box


def _pipe(stack: contextlib.ExitStack) -> tuple[int, int]:
    reading, writing = os.pipe()
    stack.callback(os.close, reading)
    stack.callback(os.close, writing)
    return reading, writing


def _popen(
    command: list[str], handed: tuple[int, ...], stdin: socket.socket, log_w: int, log_r: int
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(command, stdin=stdin.fileno(), stdout=log_w, stderr=log_w, pass_fds=handed)
    except (OSError, ValueError) as error:
        os.close(log_r)
        raise SandboxError("The sandbox's program could not be started.", why=str(error)) from None


async def _admit(box: Box, info: int) -> None:
    """Wait until process 1 exists and admit it."""
    data = bytearray()
    with trio.move_on_after(BIRTH_TIMEOUT_S):
        while not data.rstrip().endswith(b"}"):
            await trio.lowlevel.wait_readable(info)
            more = os.read(info, READ_BYTES)
            if not more:
                break
            data += more
    try:
        pid = int(json.loads(data)["child-pid"])
    except (ValueError, KeyError, TypeError):
        await _fail(box)
    box.admit(pid)


async def _fail(box: Box) -> None:
    box.kill()
    with trio.move_on_after(CLOSE_TIMEOUT_S):
        await box.read_log()
    raise SandboxError(
        "The sandbox could not be started.",
        why=box.diagnosis() or "bwrap ended without a word",
        fix="See the node's log; `potluck up` tries a sandbox at its start and says what is missing.",
    )
