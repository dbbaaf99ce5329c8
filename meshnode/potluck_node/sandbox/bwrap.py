"""Sandboxes made with bubblewrap: namespaces of every kind, no network, a read-only root, a system call filter.

The process behind the gate is put under its limits before it mounts anything (`box.start`). bwrap's arguments travel
through a memfd: the environment may hold secrets, and arguments can be read by every user of the machine.
"""

from __future__ import annotations

import compileall
import contextlib
import os
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import trio

from potluck import runner
from potluck.errors import SandboxError
from potluck.runner import forward
from potluck_node.sandbox import box, entry, network, overlay, seccomp
from potluck_node.sandbox.cgroups import Cgroups, Group
from potluck_node.sandbox.detect import Machine, detect
from potluck_node.sandbox.interface import HOSTNAME, MARKER, Limits, SandboxSpec, device_place
from potluck_node.sandbox.unprivileged import DROP, Stage
from potluck_node.sandbox.zygote import SocketZygote, open_zygote

# Who the code is inside. Any number but 0; 1000 is what most images expect.
INSIDE_UID = 1000

# The node's own runner, and where it is mounted: below /run, which is made of RAM and closed again. It leaves
# sys.path as soon as it is loaded, since the user's modules come first.
RUNNER = Path(runner.__file__).parent
RUNNER_PLACE = "/run/potluck/potluck_runner"
BOOT = (
    "import sys; sys.path.insert(0, '/run/potluck'); from potluck_runner.zygote import main; "
    "sys.path.remove('/run/potluck'); main()"
)

# Where programs look for a proxy, in the spellings of curl and of everybody else. The runner listens there.
PROXY = f"http://127.0.0.1:{forward.PORT}"
PROXY_ENVIRONMENT = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"), PROXY),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1"),
}

# Environment of every sandbox. A read-only root takes no byte code, so that writing it is not even tried.
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    MARKER: "1",
}

_ISOLATION = (
    "--unshare-all",
    "--unshare-user",
    "--disable-userns",
    "--die-with-parent",
    "--new-session",
    "--as-pid-1",
    "--clearenv",
)


class BwrapLauncher:
    """A `Launcher` (see `interface`). Raises `SandboxError` when this machine cannot do it."""

    tier: str = "bwrap"
    _box: type[box.Box] = box.Box

    def __init__(self, groups: Cgroups | None = None) -> None:
        """`groups` replaces what is detected."""
        self._stage = Stage() if os.geteuid() == 0 else None
        self._drop = DROP if self._stage else ()
        # Compiled once here, since a sandbox cannot write: compiling takes longer than all the rest of a start.
        compileall.compile_dir(RUNNER, quiet=2)
        self._machine = detect(self._drop, groups=groups)

    @property
    def tiers(self) -> tuple[str, ...]:
        return (self.tier,)

    @property
    def lacking(self) -> tuple[str, ...]:
        return self._machine.groups.lacking()

    @property
    def machine(self) -> Machine:
        return self._machine

    async def start(self, nursery: trio.Nursery, spec: SandboxSpec) -> SocketZygote:
        zygote = await self.open(nursery, spec)
        await zygote.start(spec.function)
        return zygote

    async def open(self, nursery: trio.Nursery, spec: SandboxSpec) -> SocketZygote:
        """Start a sandbox whose interpreter waits for its function. Raises `SandboxError`."""
        return await open_zygote(nursery, partial(self._start_box, spec))

    async def _start_box(self, spec: SandboxSpec, theirs: socket.socket) -> box.Box:
        group = self._make_group(spec)
        try:
            with contextlib.ExitStack() as files:
                command, handed = self._command(spec, group, files)
                limits = self._outer_limits(spec.limits)
                return await box.start(command, handed, theirs, group, limits, self._box)
        except BaseException:
            if group is not None:
                group.remove()
            raise

    def _make_group(self, spec: SandboxSpec) -> Group | None:
        if not self._machine.groups.folders:
            return None
        try:
            return self._machine.groups.create(self._outer_limits(spec.limits))
        except OSError as error:
            raise SandboxError("A control group could not be made.", why=str(error)) from None

    def _command(
        self, spec: SandboxSpec, group: Group | None, files: contextlib.ExitStack
    ) -> tuple[list[str], list[int]]:
        """The command and the descriptors it inherits, which `files` closes."""
        binds = [(spec.root, "/"), *spec.binds, (RUNNER, RUNNER_PLACE)]
        binds += [(spec.network, network.PLACE)] if spec.network else []
        binds += [(source, place) for source, place, _ in spec.volumes]
        binds += [(spec.overlay, "")] if spec.overlay else []
        moved: list[tuple[Path, Path]] = []
        if self._stage is not None:
            moved, binds = self._stage.prepare(binds)
        mounting: list[str] = []
        if spec.overlay:
            place, root = binds.pop()[0], binds[0][0]
            mounting, binds[0] = overlay.command(root, place), (overlay.merged(place), "/")
        options, program, handed = self._inside(spec, binds, files)
        arguments = memfd(b"".join(os.fsencode(option) + b"\0" for option in options), files)
        bwrap = [self._machine.bwrap, "--info-fd", "{info}", "--block-fd", "{gate}", "--args", str(arguments)]
        before = entry.command(self._outer_limits(spec.limits), group, moved, self._drop)
        return [*before, *mounting, *bwrap, "--", *program], [*handed, arguments]

    def _outer_limits(self, limits: Limits) -> Limits:
        """What the processes that the host sees are limited to."""
        return limits

    def _missing_calls(self) -> tuple[str, ...]:
        """Memory that no process shows is not made where only processes are looked at."""
        return () if "memory" in self._machine.groups.folders else seccomp.HIDDEN_MEMORY

    def _inside(
        self, spec: SandboxSpec, binds: list[tuple[Path, str]], files: contextlib.ExitStack
    ) -> tuple[list[str], list[str], list[int]]:
        """bwrap's options, the program that it starts, and the descriptors which the options name."""
        filters = [memfd(program, files) for program in seccomp.programs(self._missing_calls())]
        options = [*_ISOLATION, *_identity(), *_mounts(binds, spec)]
        for name, value in environment(spec).items():
            options += ["--setenv", name, value]
        for descriptor in filters:
            options += ["--add-seccomp-fd", str(descriptor)]
        return options, [spec.python, "-c", BOOT], filters


def _identity() -> list[str]:
    return ["--uid", str(INSIDE_UID), "--gid", str(INSIDE_UID), "--hostname", HOSTNAME]


def _mounts(binds: list[tuple[Path, str]], spec: SandboxSpec) -> Iterator[str]:
    """Folders that can be written are RAM with a size; /dev, which bwrap makes of RAM without one, is closed."""
    (root, _), *others = binds
    writable = {place for _, place, read_only in spec.volumes if not read_only}
    yield from ("--bind" if spec.overlay else "--ro-bind", str(root), "/", "--size", str(1 << 20), "--tmpfs", "/run")
    for source, target in others:
        yield from ("--bind" if target in writable else "--ro-bind", str(source), target)
    yield from ("--proc", "/proc", "--dev", "/dev")
    for device in spec.devices:
        yield from ("--dev-bind", str(device), device_place(device))
    for target, size_mib in (("/dev/shm", spec.limits.shm_mib), ("/tmp", spec.limits.tmp_mib)):
        yield from ("--size", str(size_mib << 20), "--perms", "1777", "--tmpfs", target)
    yield from ("--remount-ro", "/dev", "--remount-ro", "/run", "--chdir", spec.workdir)


def environment(spec: SandboxSpec) -> dict[str, str]:
    """All of the zygote's variables. Raises `SandboxError` for one that cannot be."""
    # Numeric libraries start a thread per core that they see, and they see all of the machine's.
    threads = {"OMP_NUM_THREADS": str(max(1, -(-spec.limits.cpu_milli // 1000)))}
    proxies = PROXY_ENVIRONMENT if spec.network else {}
    given = {**spec.env, **dict(spec.function.env), **dict(spec.function.secrets)}
    variables = {**ENVIRONMENT, **threads, **proxies, **given, MARKER: "1"}
    for name, value in variables.items():
        if not name or "=" in name or "\0" in name + value:
            raise SandboxError(f"{name!r} cannot be set as an environment variable.", why="It has '=' or a zero byte.")
    return variables


def memfd(data: bytes, files: contextlib.ExitStack) -> int:
    """A readable copy of `data`."""
    descriptor = os.memfd_create("potluck")
    files.callback(os.close, descriptor)
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
