"""Memory, process and CPU limits through control groups, where the machine lets us make any.

Documents: kernel `admin-guide/cgroup-v2.rst` and `admin-guide/cgroup-v1/`. Groups are made below the node's own where
possible, so that limits on the node hold for its sandboxes too.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from potluck_node.sandbox.interface import Limits

CONTROLLERS = ("memory", "pids", "cpu")
# Without these a stranger's function can bring the machine down; without the third it is only slow.
ESSENTIAL = ("memory", "pids")
# Length of a CPU period, microseconds: the kernel's default. `cpu_milli` thousandths of it are one sandbox's share.
PERIOD_US = 100_000

_PREFIX = "potluck-"
_counter = itertools.count()
# Folders of groups that could not be removed in time.
_abandoned: set[Path] = set()


@dataclass(frozen=True)
class Cgroups:
    """Where groups can be made: controller name → the folder below which it is ours. `v2` means one common tree."""

    folders: dict[str, Path]
    v2: bool

    def describe(self) -> str:
        """What is enforced, in words for `potluck doctor`."""
        version = "v2" if self.v2 else "v1"
        have = [name for name in CONTROLLERS if name in self.folders]
        lack = [name for name in CONTROLLERS if name not in self.folders]
        if not have:
            return (
                "no control groups: memory is sampled, processes are limited by RLIMIT_NPROC, CPU is not limited; "
                "start the node as a systemd service with Delegate=yes to enforce all three"
            )
        return f"control groups {version} limit {', '.join(have)}" + (f"; not {', '.join(lack)}" if lack else "")

    def lacking(self) -> tuple[str, ...]:
        """Essential limits that cannot be set."""
        return tuple(name for name in ESSENTIAL if name not in self.folders)

    def create(self, limits: Limits) -> Group:
        """Make a group with these limits in every hierarchy. Raises `OSError`."""
        _abandoned.difference_update({folder for folder in _abandoned if _removed(folder)})
        name = f"{_PREFIX}{os.getpid()}-{next(_counter)}"
        group = Group({controller: folder / name for controller, folder in self.folders.items()}, self.v2)
        try:
            group.make(limits)
        except OSError:
            group.remove()
            raise
        return group

    def remove_stale(self) -> None:
        """Remove the empty groups of nodes that were killed."""
        for folder in set(self.folders.values()):
            for left in folder.glob(f"{_PREFIX}*"):
                owner = left.name.removeprefix(_PREFIX).split("-")[0]
                if owner.isdigit() and not Path("/proc", owner).exists():
                    with contextlib.suppress(OSError):
                        left.rmdir()


@dataclass(frozen=True)
class Group:
    """One sandbox's group: controller → its folder."""

    folders: dict[str, Path]
    v2: bool

    @property
    def limits_memory(self) -> bool:
        return "memory" in self.folders

    @property
    def limits_processes(self) -> bool:
        return "pids" in self.folders

    def make(self, limits: Limits) -> None:
        for folder in set(self.folders.values()):
            folder.mkdir()
        settings = _settings_v2(limits) if self.v2 else _settings_v1(limits)
        for controller, folder in self.folders.items():
            for name, value in settings[controller]:
                _write(folder / name, value)

    def entries(self) -> list[Path]:
        """The files into which a process writes 0 to move itself in; what it forks later is in too."""
        return [folder / ("cgroup.procs" if self.v2 else "tasks") for folder in sorted(set(self.folders.values()))]

    def oom_kills(self) -> int:
        """How many processes the kernel has killed here for want of memory."""
        if not self.limits_memory:
            return 0
        return _read_field(self.folders["memory"] / ("memory.events" if self.v2 else "memory.oom_control"), "oom_kill")

    def kill(self) -> None:
        """End every process in here, also one whose parent is gone before it was known."""
        for entry in self.entries():
            for pid in _words(entry):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)

    def remove(self) -> bool:
        """Remove the folders; False while a process is still in one."""
        left = [folder for folder in set(self.folders.values()) if not _removed(folder)]
        return not left

    def remove_later(self) -> None:
        """Remove it when the next group is made: its processes cannot be killed now."""
        _abandoned.update(self.folders.values())


def _removed(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        folder.rmdir()
    return not folder.exists()


def _settings_v2(limits: Limits) -> dict[str, list[tuple[str, str]]]:
    return {
        "memory": [("memory.max", f"{limits.memory_mib}M"), ("memory.swap.max?", "0")],
        "pids": [("pids.max", str(limits.pids))],
        "cpu": [("cpu.max", f"{limits.cpu_milli * PERIOD_US // 1000} {PERIOD_US}")],
    }


def _settings_v1(limits: Limits) -> dict[str, list[tuple[str, str]]]:
    memory = f"{limits.memory_mib}M"
    return {
        "memory": [("memory.limit_in_bytes", memory), ("memory.memsw.limit_in_bytes?", memory)],
        "pids": [("pids.max", str(limits.pids))],
        "cpu": [
            ("cpu.cfs_period_us", str(PERIOD_US)),
            ("cpu.cfs_quota_us", str(limits.cpu_milli * PERIOD_US // 1000)),
        ],
    }


def _write(path: Path, value: str) -> None:
    """A name that ends in "?" is a setting that kernels without swap accounting lack."""
    if path.name.endswith("?"):
        path = path.with_name(path.name[:-1])
        if not path.exists():
            return
    path.write_text(value)


def _read_field(path: Path, name: str) -> int:
    try:
        fields = dict(line.split(" ", 1) for line in path.read_text().splitlines() if " " in line)
        return int(fields.get(name, 0))
    except (OSError, ValueError):
        return 0


def detect(proc: Path = Path("/proc/self")) -> Cgroups:
    """Find what this process may use: v2 when its tree has the controllers, else v1, else nothing."""
    own = _own_groups((proc / "cgroup").read_text())
    mounts = _mounts((proc / "mountinfo").read_text())
    v2 = _find_v2(own, mounts)
    found = Cgroups(dict.fromkeys(v2[1], v2[0]), v2=True) if v2 else Cgroups(_find_v1(own, mounts), v2=False)
    found.remove_stale()
    return found


def _own_groups(text: str) -> dict[str, str]:
    """Controller (empty for v2) → the path of our group, from /proc/self/cgroup."""
    own: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        own |= dict.fromkeys(controllers.split(","), path)
    return own


def _mounts(text: str) -> dict[str, tuple[Path, str]]:
    """Controller (empty for v2) → (mount point, path of the group mounted there), from /proc/self/mountinfo."""
    mounts: dict[str, tuple[Path, str]] = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        root, point = left.split(" ")[3:5]
        if kind == "cgroup2":
            mounts[""] = (Path(point), root)
        elif kind == "cgroup":
            mounts |= dict.fromkeys(set(options.split(",")) & set(CONTROLLERS), (Path(point), root))
    return mounts


def _folder(controller: str, own: dict[str, str], mounts: dict[str, tuple[Path, str]]) -> Path | None:
    if controller not in own or controller not in mounts:
        return None
    point, root = mounts[controller]
    path = own[controller]
    inside = os.path.relpath(path, root)
    return None if inside.startswith("..") else point / inside


def _find_v1(own: dict[str, str], mounts: dict[str, tuple[Path, str]]) -> dict[str, Path]:
    folders = {name: _folder(name, own, mounts) for name in CONTROLLERS}
    return {name: folder for name, folder in folders.items() if folder is not None and _can_make(folder)}


def _find_v2(own: dict[str, str], mounts: dict[str, tuple[Path, str]]) -> tuple[Path, list[str]] | None:
    """The nearest group at or above ours that hands memory control to its children and in which we may make one."""
    folder = _folder("", own, mounts)
    if folder is None:
        return None
    top = mounts[""][0]
    for candidate in (folder, *folder.parents):
        if not candidate.is_relative_to(top):
            break
        given = _words(candidate / "cgroup.subtree_control")
        if "memory" in given and _can_make(candidate):
            return candidate, [name for name in CONTROLLERS if name in given]
    return None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _can_make(folder: Path) -> bool:
    """Whether we may make a group here and move processes into it: both need the right to write `cgroup.procs`."""
    probe = folder / f"{_PREFIX}{os.getpid()}-probe"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return os.access(folder / "cgroup.procs", os.W_OK)
