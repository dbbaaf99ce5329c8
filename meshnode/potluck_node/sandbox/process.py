"""No sandbox at all: a process of the owner's, under limits where control groups allow.

For development on machines that allow nothing better. It protects nobody, so a node that uses it runs its owner's own
functions only (`node`), and only images whose Python starts outside of them, as `Image.local_python()` does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import tempfile
from functools import partial
from pathlib import Path

import trio

from potluck.errors import SandboxError
from potluck_node.sandbox import box, cgroups, entry, memory
from potluck_node.sandbox.bwrap import BOOT, RUNNER, RUNNER_PLACE, environment
from potluck_node.sandbox.cgroups import Cgroups, Group
from potluck_node.sandbox.interface import MARKER, SandboxSpec
from potluck_node.sandbox.zygote import SocketZygote, open_zygote

# Speaks as bubblewrap does with its `--info-fd` and `--block-fd`: names itself, and waits for a byte.
_GATE = """
import os, sys
info, gate = int(sys.argv[1]), int(sys.argv[2])
os.write(info, b'{"child-pid": %d}' % os.getpid())
os.read(gate, 1)
os.close(info), os.close(gate)
os.execvpe("env", sys.argv[3:], os.environ)
"""


def _outside(root: Path, value: str) -> str:
    """Paths of the image as they are from outside of it; everything else as it is."""
    return ":".join(
        f"{root}{each}" if each.startswith("/") and _is_in(root, each) else each for each in value.split(":")
    )


def _is_in(root: Path, path: str) -> bool:
    return root != Path("/") and Path(f"{root}{path}").exists()


class ProcessBox(box.Box):
    """Without namespaces nothing ends the children of a process but finding them."""

    def kill(self) -> None:
        for pid in memory.descendants(self.pid) if self.pid else []:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        super().kill()

    def _limit_processes(self, pid: int) -> None:
        """The limit would count all that the owner runs."""


class ProcessLauncher:
    """A `Launcher` (see `interface`) that isolates nothing."""

    tier = "process"
    tiers = ("process",)
    lacking = cgroups.ESSENTIAL

    def __init__(self, groups: Cgroups | None = None) -> None:
        self._groups = cgroups.detect() if groups is None else groups
        self._folder = tempfile.TemporaryDirectory(prefix="potluck-process-")
        Path(self._folder.name, Path(RUNNER_PLACE).name).symlink_to(RUNNER)

    async def start(self, nursery: trio.Nursery, spec: SandboxSpec) -> SocketZygote:
        if spec.volumes:
            raise SandboxError("Volumes cannot be mounted without a sandbox.", fix="Use a node with bwrap or gvisor.")
        zygote = await open_zygote(nursery, partial(self._start_box, spec))
        await zygote.start(spec.function)
        return zygote

    async def _start_box(self, spec: SandboxSpec, theirs: socket.socket) -> box.Box:
        group = self._groups.create(spec.limits) if self._groups.folders else None
        try:
            return await box.start(self._command(spec, group), (), theirs, group, spec.limits, ProcessBox)
        except BaseException:
            if group is not None:
                group.remove()
            raise

    def _command(self, spec: SandboxSpec, group: Group | None) -> list[str]:
        python = Path(f"{spec.root}{spec.python}")
        if not python.exists():
            raise SandboxError(f"The image has no Python at {spec.python}.", fix="Use Image.local_python().")
        boot = BOOT.replace(str(Path(RUNNER_PLACE).parent), self._folder.name)
        # Without the marker: what asks for it must not believe that it is in a sandbox.
        variables = [f"{name}={_outside(spec.root, value)}" for name, value in environment(spec).items()]
        variables.remove(f"{MARKER}=1")
        gate = [sys.executable, "-ISc", _GATE, "{info}", "{gate}", "env", "-i", *variables, str(python), "-c", boot]
        return [*entry.command(spec.limits, group, [], []), *gate]
