"""Limits that every Linux has, in place before foreign code runs.

RLIMIT_AS is left alone: numeric libraries reserve far more address space than they use.
"""

from __future__ import annotations

import resource
import subprocess

from potluck_node.sandbox.interface import Limits
from potluck_node.sandbox.unprivileged import DROP

# Setting a limit takes milliseconds.
TIMEOUT_S = 5.0


def command(limits: Limits) -> list[str]:
    """The command to put before bwrap (`prlimit` is part of util-linux)."""
    wanted = {"nofile": limits.open_files, "fsize": limits.file_mib << 20, "core": 0}
    return ["prlimit", *(f"--{name}={value}:{value}" for name, value in wanted.items()), "--"]


def limit_processes(pid: int, count: int) -> None:
    """Set RLIMIT_NPROC of a sandbox's first process, from outside.

    It counts per user namespace (Linux 5.14), so it is set after that was made: before, it would count all of the
    user's processes. Raises `OSError` or `SubprocessError`.
    """
    try:
        resource.prlimit(pid, resource.RLIMIT_NPROC, (count, count))
    except PermissionError:  # root without CAP_SYS_RESOURCE, as in a container: only the same user may
        helper = [*DROP, "prlimit", "--pid", str(pid), f"--nproc={count}:{count}"]
        subprocess.run(helper, check=True, capture_output=True, timeout=TIMEOUT_S)
