"""The sandbox seam: where foreign code runs. Nothing above it knows how a sandbox is made.

A launcher starts a sandbox with one *zygote* in it, which has imported what the function needs; each worker is forked
from it. What is inside is not trusted: each message is checked and limited, a violation ends the worker. All
launchers pass `tests/conformance/check_sandbox.py`.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import trio

from potluck.wire.common import FunctionSpec
from potluck.wire.worker import FromWorker, ToWorker, ZygoteReady

# How long a sandbox may take until its zygote is ready, seconds. `import torch` from a cold disk took 20-30 s on slow
# machines; whoever needs longer than this has an import that hangs.
START_TIMEOUT_S = 120.0

# How long forking one worker may take, seconds. It takes milliseconds; a zygote that needs longer is stuck.
SPAWN_TIMEOUT_S = 10.0

# How long the kernel may take to end a killed sandbox, seconds. A process in uninterruptible sleep (a dead network
# disk, a GPU driver) can outlive SIGKILL; nobody waits longer than this for it.
CLOSE_TIMEOUT_S = 5.0

# Environment variable and host name by which code can tell that it runs in a sandbox.
MARKER = "POTLUCK_SANDBOX"
HOSTNAME = "potluck"


@dataclass(frozen=True)
class Limits:
    """What one whole sandbox (zygote and all its workers) may use.

    `memory_mib` includes scratch and shared memory, which live in RAM; where the machine has no cgroups it is checked
    by sampling. `cpu_milli` is thousandths of a core, and needs cgroups.
    """

    # A worker with numpy needs about 60 MiB; 512 is what a function gets that asks for nothing.
    memory_mib: int = 512
    cpu_milli: int = 1000
    # Numeric libraries start a thread per core and several pools; a fork bomb is stopped long before it hurts.
    pids: int = 256
    # The usual soft limit of Linux distributions, made hard.
    open_files: int = 1024
    # Upper bound for /tmp, which is never larger than half of `memory_mib`: full must mean ENOSPC, not out of memory.
    scratch_mib: int = 1024
    # Size of /tmp where the function asked for one, and for the memory that it takes.
    asked_tmp_mib: int = 0
    # Upper bound for one written file (RLIMIT_FSIZE): memfds escape the size of /tmp.
    file_mib: int = 4096

    @property
    def tmp_mib(self) -> int:
        """The size of /tmp."""
        return self.asked_tmp_mib or max(1, min(self.scratch_mib, self.memory_mib // 2))

    @property
    def shm_mib(self) -> int:
        """The size of /dev/shm, so that /tmp and it together leave a quarter of the memory to the processes."""
        return max(1, min(self.scratch_mib, self.memory_mib // 4))


@dataclass(frozen=True)
class SandboxSpec:
    """One sandbox to start.

    `root` is a materialised image: it is mounted read-only, and has the empty folders /proc /dev /tmp /run /sys.
    Its top folder must be readable by everyone (mode 0755), its parents need not be. `python` is a path inside.
    Nothing of Potluck need be in the image. `binds` are further read-only mounts (host path, path inside),
    `devices` are device files of the host (see `device_place`). `network` is a folder with the socket of a proxy, which
    is all the network that a sandbox can have (see `network.Gateway`). `volumes` are folders (host path, a
    folder of the image, whether they can only be read) which the code's user on the host owns (see `unprivileged`).
    `overlay` is a folder (see `overlay.make`) in which is kept what the code writes to its root, which it then can;
    the code's user must own the root.
    `env` comes on top of the launcher's few variables, the function's own `env` on top of it. `owner` is the caller,
    who never shares a sandbox with another. `tier` is the kind of sandbox; "" leaves it to the function.
    """

    root: Path
    function: FunctionSpec
    python: str
    workdir: str = "/tmp"
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = Limits()
    binds: tuple[tuple[Path, str], ...] = ()
    devices: tuple[Path, ...] = ()
    network: Path | None = None
    owner: str = ""
    volumes: tuple[tuple[Path, str, bool], ...] = ()
    overlay: Path | None = None
    tier: str = ""


def device_place(device: Path) -> str:
    """Where a device file is inside: under the same name below /dev, also when the host's /dev is elsewhere."""
    return f"/dev/{str(device).rpartition('/dev/')[2]}"


class WorkerEnded(Exception):  # noqa: N818 - the end of a worker is an event, not always a mistake
    """The worker is gone. `status` is the exit code, or minus the signal number; `reason` says why in words."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Worker(Protocol):
    """One forked process that runs inputs."""

    @property
    def name(self) -> str: ...

    @property
    def pid(self) -> int:
        """Process id as the sandbox sees it (its own word)."""
        ...

    async def send(self, message: ToWorker) -> None:
        """Send one message. Raises `WorkerEnded`. Cancelled before the first byte, nothing was sent; cancelled in the
        middle of a frame, the worker is killed, since its stream is broken."""
        ...

    def send_now(self, message: ToWorker) -> memoryview | None:
        """As `send`, for a message without large payloads, as far as that needs no waiting. Returns what is left, for
        `send_rest` before anything else; None when all was sent, or nobody reads it. Not while `sending`."""
        ...

    async def send_rest(self, rest: memoryview) -> None:
        """Send what `send_now` left. Raises `WorkerEnded`."""
        ...

    @property
    def sending(self) -> bool:
        """Whether somebody sends, or waits to."""
        ...

    async def receive(self) -> FromWorker:
        """The next message; one receiver at a time, cancelling loses nothing. While nobody receives, a worker that
        prints too much blocks. Raises `WorkerEnded` when the process is gone or broke the protocol (it is killed
        first); all that it sent before is delivered first."""
        ...

    async def interrupt(self, last: bool = False) -> None:
        """Tell it that it will be ended, by SIGINT, or with `last` by SIGTERM that this is soon. It may ignore that."""
        ...

    async def kill(self) -> None:
        """End the process at once; `receive` then raises `WorkerEnded`. Idempotent."""
        ...


class Zygote(Protocol):
    """A running sandbox with everything imported."""

    @property
    def ready(self) -> ZygoteReady: ...

    @property
    def host_pid(self) -> int:
        """The sandbox's first process as the host numbers it: all others descend from it. 0 when it is gone."""
        ...

    @property
    def alive(self) -> bool:
        """Whether workers can still be forked here."""
        ...

    async def spawn(self, worker: str) -> Worker:
        """Fork a worker named `worker` (never used before in this sandbox). Raises `SandboxError` when the zygote is
        gone or does not answer within `SPAWN_TIMEOUT_S`."""
        ...

    async def execute(self, name: str, command: Sequence[str], size: tuple[int, int], channel: socket.socket) -> int:
        """Run a command beside the workers, under the same limits, until it ends; returns its exit status, or minus the
        signal that ended it. `channel`, which is closed here, is its standard input, output and error; unless `size`
        (rows, columns) is (0, 0), it has a terminal where the sandbox can have any. Cancelled, the command is killed.
        `name` is new, as those of workers. Raises `SandboxError` when the sandbox is gone."""
        ...

    async def wait_ended(self) -> str:
        """Wait until the sandbox is gone, for whatever reason; returns the reason in words."""
        ...

    async def aclose(self) -> None:
        """Kill everything in the sandbox at once, reap it, and remove its traces; idempotent. Takes at most
        `CLOSE_TIMEOUT_S`, also when cancelled."""
        ...


class Launcher(Protocol):
    """Starts sandboxes of one tier."""

    @property
    def tier(self) -> str:
        """The tier of a function that asks for none, as offers and leases show it: "bwrap", "gvisor"."""
        ...

    @property
    def tiers(self) -> tuple[str, ...]:
        """All tiers that can be asked for, the weakest first."""
        ...

    @property
    def lacking(self) -> tuple[str, ...]:
        """What cannot be limited here, though a stranger could bring the machine down by it: "memory", "pids"."""
        ...

    async def start(self, nursery: trio.Nursery, spec: SandboxSpec) -> Zygote:
        """Start a sandbox; background tasks run in `nursery`, and its cancellation ends the sandbox.

        Returns when the zygote is ready. Raises `SandboxError` (it cannot start, and what to install or enable, or it
        took longer than `START_TIMEOUT_S`), or what the zygote reported, e.g. `ImageImportError`. When this raises or
        is cancelled nothing is left behind.
        """
        ...
