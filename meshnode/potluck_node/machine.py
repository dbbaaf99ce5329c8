"""What this machine is, as far as offers and limits need it."""

from __future__ import annotations

import os
import platform


def machine() -> str:
    """The processor family as in image configs: x86_64, aarch64."""
    return platform.machine()


def memory_mib() -> int:
    """All memory, MiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))
