"""Which of the machine's processes belong to which sandbox, by descent. Blocking, a few milliseconds."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path


def owners(sandboxes: Mapping[str, int], proc: Path = Path("/proc")) -> dict[int, tuple[str, int]]:
    """Pid → (name, start of the process in Unix microseconds) of everything below the given first processes."""
    roots = {pid: name for name, pid in sandboxes.items() if pid}
    table = {pid: (parent, started_us) for pid, parent, started_us in _processes(proc)} if roots else {}
    found: dict[int, tuple[str, int]] = {}
    for pid, (_, started_us) in table.items():
        name = _root_of(pid, table, roots)
        if name is not None:
            found[pid] = (name, started_us)
    return found


def _root_of(pid: int, table: Mapping[int, tuple[int, int]], roots: Mapping[int, str]) -> str | None:
    for _ in range(len(table)):  # the table may change while it is read: no endless walk
        if pid in roots:
            return roots[pid]
        if pid not in table:
            return None
        pid = table[pid][0]
    return None


def _processes(proc: Path) -> Iterator[tuple[int, int, int]]:
    """(pid, parent, start) of each process; proc(5), /proc/pid/stat, fields 4 and 22."""
    tick_us = 1_000_000 // os.sysconf("SC_CLK_TCK")
    booted_us = (time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) // 1000
    for folder in proc.iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                yield int(folder.name), int(fields[1]), booted_us + int(fields[19]) * tick_us
            except (OSError, IndexError, ValueError):
                continue  # it has just ended
