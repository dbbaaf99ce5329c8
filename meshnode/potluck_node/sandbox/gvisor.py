"""Sandboxes made with gVisor's `runsc`: the code's system calls are answered by a kernel of its own, written in Go.

The strict tier. `runsc` runs inside a bubblewrap sandbox that holds its own binary, the image and nothing else of the
host, so that whoever breaks out of the first finds himself in the second; and so that starting, limits, killing and
reaping are those of the other tier. Document: gvisor.dev/docs/architecture_guide/security.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio

from potluck_node.sandbox import box, gvisor_detect, memory
from potluck_node.sandbox.bwrap import BOOT, INSIDE_UID, RUNNER_PLACE, BwrapLauncher, environment, memfd
from potluck_node.sandbox.cgroups import Cgroups
from potluck_node.sandbox.interface import HOSTNAME, Limits, SandboxSpec

# Where the outer sandbox keeps things.
_RUNSC, _BUNDLE, _STATE = "/runsc", "/bundle", "/run/runsc"
_VOLUMES = "/volumes"
IMAGE = "/image"
# The one user that gVisor knows of the outer sandbox, to whom files in writable folders belong. It has no capabilities,
# and is nobody outside.
_OWNER_OF_FILES = {"uid": 0, "gid": 0}
_KERNEL = {"proc": "proc", "dev": "devtmpfs"}

# `runsc` maps users itself, as root of a namespace in which nothing else is; so it needs every capability there, and
# namespaces of its own.
_OUTER = (
    *("--unshare-all", "--unshare-user", "--uid", "0", "--gid", "0", "--cap-add", "ALL"),
    *("--die-with-parent", "--new-session", "--clearenv", "--hostname", HOSTNAME),
)
# A sparse file of all memory, whose used part the limit on memory bounds; and a descriptor for each file of the image
# that is known, which are at most as many as the hard limit of the node.
_FILE_MIB, _OPEN_FILES = 1 << 30, 1 << 16
# Threads of gVisor's own processes: 40 were seen.
_PIDS = 128
# For the few files of the outer sandbox: the socket and state of one container.
_OUTER_BYTES = 8 << 20


class GvisorBox(box.Box):
    """The kernel that answers the code lives in one of the processes, and hangs without any of the others."""

    descriptors = False

    async def watch_memory(self) -> None:
        if self._group is None or not self._group.limits_memory:
            await super().watch_memory()
            return
        while not self._group.oom_kills():  # noqa: ASYNC110 - nothing tells us
            await trio.sleep(memory.SAMPLE_S)
        self.kill()


class GvisorLauncher(BwrapLauncher):
    """A `Launcher` (see `interface`). Raises `SandboxError` when this machine cannot do it."""

    tier = "gvisor"
    _box = GvisorBox

    def __init__(self, groups: Cgroups | None = None) -> None:
        super().__init__(groups)
        self._runsc = gvisor_detect.find(self._drop, self._machine.bwrap)

    def _outer_limits(self, limits: Limits) -> Limits:
        """gVisor keeps all memory of the code in one sparse file, and its files in descriptors of its own; it holds
        the code itself to the limits on files. Each thread of the code is two of the host's."""
        return replace(limits, pids=2 * limits.pids + _PIDS, file_mib=_FILE_MIB, open_files=_OPEN_FILES)

    def _inside(
        self, spec: SandboxSpec, binds: list[tuple[Path, str]], files: contextlib.ExitStack
    ) -> tuple[list[str], list[str], list[int]]:
        written = _config(spec)
        if missing := self._missing_calls():
            written["linux"]["seccomp"] = _filter(missing)
        file = memfd(json.dumps(written).encode(), files)
        shown, volumes = binds[: len(binds) - len(spec.volumes)], binds[len(binds) - len(spec.volumes) :]
        places = _volumes(volumes, spec)
        return (
            [*outer(self._runsc), *_image(shown, spec), *places, *bundle(file)],
            command(sockets=spec.network is not None),
            [file],
        )


def _image(binds: list[tuple[Path, str]], spec: SandboxSpec) -> Iterator[str]:
    """The image with all that is bound into it, put together here: gVisor can mount only on folders that it has."""
    (root, _), *others = binds
    yield from ("--bind" if spec.overlay else "--ro-bind", str(root), IMAGE)
    yield from ("--size", str(1 << 20), "--tmpfs", f"{IMAGE}/run")
    yield from ("--perms", "0755", "--dir", f"{IMAGE}{Path(RUNNER_PLACE).parent}")
    for source, target in others:
        yield from ("--ro-bind", str(source), f"{IMAGE}{target}")
    yield from ("--remount-ro", f"{IMAGE}/run")


def _volumes(binds: list[tuple[Path, str]], spec: SandboxSpec) -> Iterator[str]:
    """Where gVisor finds what it mounts by itself: its root is read-only, and taken not to change."""
    for number, ((source, _), (_, _, read_only)) in enumerate(zip(binds, spec.volumes, strict=True)):
        yield from ("--ro-bind" if read_only else "--bind", str(source), f"{_VOLUMES}/{number}")


def bundle(file: int) -> list[str]:
    """bwrap's options for the container's configuration, which is read from a descriptor."""
    return ["--ro-bind-data", str(file), f"{_BUNDLE}/config.json", "--remount-ro", "/"]


def outer(runsc: str) -> list[str]:
    """bwrap's options for a place that has `runsc` and nothing else."""
    options = [*_OUTER, "--size", str(_OUTER_BYTES), "--tmpfs", "/", "--ro-bind", runsc, _RUNSC]
    options += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    for folder in ("/tmp", "/run"):
        options += ["--size", str(_OUTER_BYTES), "--tmpfs", folder]
    return options


def command(*, sockets: bool = False) -> list[str]:
    """What runs the bundle. Control groups are the node's affair, and no network is needed.

    With `sockets` the code may connect to the Unix sockets that it sees as files: the one of the proxy.
    """
    flags = ["--host-uds=open"] if sockets else []
    flags += [
        "--rootless",
        "--platform=systrap",
        "--network=none",
        "--oci-seccomp",
        "--ignore-cgroups",
        "--overlay2=none",
    ]
    return [_RUNSC, f"--root={_STATE}", *flags, "run", f"--bundle={_BUNDLE}", "sandbox"]


def _config(spec: SandboxSpec) -> dict[str, Any]:
    variables = [f"{name}={value}" for name, value in environment(spec).items()]
    process: dict[str, Any] = {"env": variables, "cwd": spec.workdir, "rlimits": _rlimits(spec.limits)}
    mounts = [*_mounts(spec.limits), *_volume_mounts(spec)]
    if spec.overlay or not all(read_only for _, _, read_only in spec.volumes):
        process["user"] = _OWNER_OF_FILES
    return config([spec.python, "-c", BOOT], process, mounts, read_only=spec.overlay is None)


def config(
    arguments: list[str], process: Mapping[str, Any] = {}, mounts: Sequence[Any] = (), *, read_only: bool = True
) -> dict[str, Any]:
    """An OCI runtime configuration (opencontainers/runtime-spec, config.md)."""
    return {
        "ociVersion": "1.0.0",
        "hostname": HOSTNAME,
        "root": {"path": IMAGE, "readonly": read_only},
        "process": {
            "user": {"uid": INSIDE_UID, "gid": INSIDE_UID},
            "args": arguments,
            "cwd": "/",
            "capabilities": {},
            "noNewPrivileges": True,
            **process,
        },
        "mounts": list(mounts),
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]},
    }


def _filter(refused: tuple[str, ...]) -> dict[str, Any]:
    """System calls that gVisor's kernel does not answer either (OCI config-linux.md, seccomp)."""
    rules = [{"names": list(refused), "action": "SCMP_ACT_ERRNO"}]
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}


def _rlimits(limits: Limits) -> list[dict[str, Any]]:
    bounds = {
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_FSIZE": limits.file_mib << 20,
        "RLIMIT_NPROC": limits.pids,
        "RLIMIT_CORE": 0,
    }
    return [{"type": kind, "hard": bound, "soft": bound} for kind, bound in bounds.items()]


def _volume_mounts(spec: SandboxSpec) -> Iterator[dict[str, Any]]:
    for number, (_, place, read_only) in enumerate(spec.volumes):
        options = ["rbind", "ro" if read_only else "rw", "nosuid", "nodev"]
        yield {"destination": place, "type": "bind", "source": f"{_VOLUMES}/{number}", "options": options}


def _mounts(limits: Limits) -> list[dict[str, Any]]:
    """Folders of RAM with a size, and what the kernel shows of itself."""
    kernel = [{"destination": f"/{name}", "type": kind, "source": kind} for name, kind in _KERNEL.items()]
    sizes = {"/dev/shm": limits.shm_mib, "/tmp": limits.tmp_mib}
    return kernel + [
        {
            "destination": place,
            "type": "tmpfs",
            "source": "tmpfs",
            "options": [f"size={size}m", "mode=1777", "nosuid", "nodev"],
        }
        for place, size in sizes.items()
    ]
