"""What a build step may use, and who sees to it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from potluck_images.errors import ImageBuildError
from potluck_node.sandbox import memory
from potluck_node.sandbox.cgroups import Group
from potluck_node.sandbox.interface import Limits

# Compiling a large package takes an hour on a laptop; a step that takes two hangs.
STEP_TIMEOUT_S = 2 * 3600.0

# A CUDA toolkit with frameworks is 15 GB, and is unpacked next to its archives.
DISK_BYTES_MAX = 64 << 30
# Measuring means looking at every file.
DISK_PAUSE_S = 5.0


def _memory_mib() -> int:
    """Three quarters of the machine: compilers need much, and the machine must stay usable."""
    return max(1024, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 3 // 4 >> 20)


LIMITS = Limits(
    memory_mib=_memory_mib(),
    cpu_milli=1000 * (os.cpu_count() or 1),
    # `make -j` on a large machine, with a few processes to each job.
    pids=4096,
    open_files=4096,
    file_mib=DISK_BYTES_MAX >> 20,
)


class Watch:
    """To be called with the step's pid now and then; raises `ImageBuildError` when it uses too much."""

    def __init__(self, written: Iterable[Path], group: Group | None) -> None:
        self._written, self._samples = tuple(written), group is None or not group.limits_memory
        self._measure_at = time.monotonic() + DISK_PAUSE_S

    def __call__(self, pid: int) -> None:
        if self._samples and memory.used_mib(pid) > LIMITS.memory_mib:
            raise _out_of_memory()
        if time.monotonic() >= self._measure_at:
            size = sum(_bytes_in(folder) for folder in self._written)
            self._measure_at = time.monotonic() + DISK_PAUSE_S
            if size > DISK_BYTES_MAX:
                raise ImageBuildError(
                    f"A build step wrote more than {DISK_BYTES_MAX >> 30} GiB.",
                    fix="Let it fetch less, or remove what it does not need as it goes.",
                )

    def check_group(self, group: Group | None) -> None:
        """Raises when the kernel killed something for want of memory."""
        if group is not None and group.oom_kills():
            raise _out_of_memory()


def _out_of_memory() -> ImageBuildError:
    return ImageBuildError(
        f"A build step needed more than {LIMITS.memory_mib} MiB of memory.",
        fix="Let it do less at once (for compilers: MAKEFLAGS=-j1), or build on a larger machine.",
    )


def _bytes_in(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
            except OSError:
                continue  # gone meanwhile
    return total
