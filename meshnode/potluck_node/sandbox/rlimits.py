"""The limit on processes that every Linux has, for machines without control groups."""

from __future__ import annotations

import resource
import subprocess

from potluck_node.sandbox.unprivileged import DROP

# Setting a limit takes milliseconds.
TIMEOUT_S = 5.0


def limit_processes(pid: int, count: int, *, needed: bool) -> None:
    """Set RLIMIT_NPROC of a sandbox's first process, from outside.

    It counts per user namespace (Linux 5.14), so it is set after that was made: before, it would count all of the
    user's processes. Root without CAP_SYS_RESOURCE, as in a container, may not do it and takes a detour through the
    sandbox's user, which is `needed` only where no control group counts. Raises `OSError` or `SubprocessError`.
    """
    try:
        resource.prlimit(pid, resource.RLIMIT_NPROC, (count, count))
    except PermissionError:
        if not needed:
            return
        helper = [*DROP, "prlimit", "--pid", str(pid), f"--nproc={count}:{count}"]
        subprocess.run(helper, check=True, capture_output=True, timeout=TIMEOUT_S)
