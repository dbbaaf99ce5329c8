"""Memory of a sandbox by sampling /proc: the fallback where there is no memory control group.

A fork shares its parent's pages, so what workers share with the zygote is counted once. Scratch is not counted.
"""

from __future__ import annotations

from pathlib import Path

# Time between two samples, seconds. Filling memory at 5 GB/s for this long overshoots by 500 MB; sampling a sandbox of
# ten processes takes under a millisecond.
SAMPLE_S = 0.1

# Processes looked at in one sample: more than the process limit allows.
PROCESSES_MAX = 4096


def used_mib(pid: int, proc: Path = Path("/proc")) -> int:
    """Anonymous and shared memory of `pid` and all its descendants, in MiB."""
    first, *others = [_private_kib(proc / str(each)) for each in descendants(pid, proc)] or [0]
    return (first + sum(max(0, each - first) for each in others)) >> 10


def descendants(pid: int, proc: Path = Path("/proc")) -> list[int]:
    """`pid` and all processes below it, parents before children."""
    found = [pid]
    for each in found:
        for children in (proc / str(each) / "task").glob("*/children"):
            found += [int(child) for child in _read(children).split()]
        if len(found) > PROCESSES_MAX:
            break
    return found


def state(pid: int, proc: Path = Path("/proc")) -> str:
    """The letter of proc(5): "T" for stopped, "Z" for a zombie; empty when there is no such process."""
    fields = _read(proc / str(pid) / "stat").rpartition(")")[2].split()
    return fields[0] if fields else ""


def _private_kib(folder: Path) -> int:
    total = 0
    for line in _read(folder / "status").splitlines():
        if line.startswith(("RssAnon:", "RssShmem:")):
            total += int(line.split()[1])
    return total


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""  # it ended meanwhile
