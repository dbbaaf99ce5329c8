"""Nodes forked from one process that has imported their modules: importing takes each node longer than starting it.

Run as a program, it is that process: one for each process of tests. It serves the socket that is its standard input,
until that closes. Each message names a module and what surrounds it, and brings standard output, standard error and a
pipe for the exit status; the answer is the child's process number.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

# What a request may take: the environment is most of it.
REQUEST_BYTES = 1 << 20
# Read by the system's loader when a program starts, and never again: as for the fake GPU driver.
LIBRARIES = "LD_LIBRARY_PATH"
# Tests start nodes from threads, too, and an answer does not say to what it is one.
_asking = threading.Lock()


class Forked:
    """The part of `subprocess.Popen` that tests use, for a process that is the server's child."""

    def __init__(self, pid: int, stdout: int, status: int) -> None:
        self.pid, self.stdout, self._status = pid, FileIO(stdout), FileIO(status)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        status = self._look(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(f"node {self.pid}", timeout or 0.0)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            self.returncode = int(self._status.read() or -signal.SIGKILL)
        return self.returncode


def fork(module: str, arguments: list[str], env: Mapping[str, str], log: Path, network: str = "") -> Forked:
    """Start `python -m module arguments…` with its own environment; its standard error is added to `log`.

    `network` is the path of a network namespace, or nothing for this process's own.
    """
    stdout, child_stdout = os.pipe()
    status, child_status = os.pipe()
    with log.open("ab") as stderr:
        request = {"module": module, "arguments": arguments, "env": dict(env), "cwd": os.getcwd(), "network": network}
        with _asking:
            socket.send_fds(_server(), [json.dumps(request).encode()], [child_stdout, stderr.fileno(), child_status])
            pid = int(_server().recv(32))
    os.close(child_stdout)
    os.close(child_status)
    return Forked(pid, stdout, status)


@functools.cache
def _server() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, REQUEST_BYTES)
    process = subprocess.Popen([sys.executable, "-m", __name__], stdin=theirs)
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def serve() -> None:
    for name in ("potluck_node.main", "potluck_node.transport.libp2p"):
        importlib.import_module(name)
    # It is to run as a program, as `python -m` runs it.
    del sys.modules["potluck_node.main"]
    gc.freeze()
    channel = socket.socket(fileno=os.dup(0))
    woken, waker = os.pipe2(os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker)
    statuses: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([channel, woken], [], [])
        if woken in ready:
            os.read(woken, 512)
            _reap(statuses)
        if channel in ready:
            request, fds, _, _ = socket.recv_fds(channel, REQUEST_BYTES, 3)
            if not request:
                return
            pid = os.fork() or _child(json.loads(request), fds, [channel.fileno(), woken, waker, *statuses.values()])
            statuses[pid] = fds.pop()
            for fd in fds:
                os.close(fd)
            channel.send(str(pid).encode())


def _reap(statuses: dict[int, int]) -> None:
    while statuses:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with os.fdopen(statuses.pop(pid), "w") as pipe:
            pipe.write(str(os.waitstatus_to_exitcode(status)))


def _child(request: Mapping[str, Any], fds: list[int], others: list[int]) -> int:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDONLY)
    for fd, target in ((null, 0), (fds[0], 1), (fds[1], 2)):
        os.dup2(fd, target)
    for fd in (null, *fds, *others):
        os.close(fd)
    libraries = os.environ.get(LIBRARIES)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    if request["network"]:
        _enter(request["network"])
    if os.environ.get(LIBRARIES) != libraries:
        os.execv(sys.executable, [sys.executable, "-m", request["module"], *request["arguments"]])
    sys.argv = ["", *request["arguments"]]
    code = 1
    try:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _enter(network: str) -> None:
    with open(network) as namespace:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(namespace.fileno(), 0):
            raise OSError(ctypes.get_errno(), "setns")


if __name__ == "__main__":
    serve()
