"""Finds a `runsc` that works here; says what to install."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence

from potluck.errors import SandboxError

# Debian 12's own build of 2022 does not start on newer kernels; 2024 and later does.
RUNSC_VERSION_MIN = 20240101

# Asking for a version takes 30 ms.
TRIAL_TIMEOUT_S = 10.0

FIX = (
    "Install gVisor's runsc of 2024 or later (Debian 13 and Ubuntu 25.04 have it: sudo apt install runsc; others: "
    "gvisor.dev/docs/user_guide/install)."
)


def find(drop: Sequence[str], bwrap: str) -> str:
    """The path of a `runsc` that runs in a sandbox of bubblewrap as the user that `drop` becomes.

    Raises `SandboxError`.
    """
    from potluck_node.sandbox.gvisor import outer

    runsc = shutil.which("runsc")
    if runsc is None:
        raise SandboxError("The strict sandboxes need gVisor, which is not installed.", fix=FIX)
    trial = subprocess.run(
        [*drop, bwrap, *outer(runsc), "--", "/runsc", "--version"],
        capture_output=True, text=True, timeout=TRIAL_TIMEOUT_S, cwd="/",
    )  # fmt: skip
    if trial.returncode != 0:
        raise SandboxError("runsc does not start in a sandbox.", why=trial.stderr.strip(), fix=FIX)
    version = re.search(r"(\d{8})", trial.stdout)
    if version is None or int(version[0]) < RUNSC_VERSION_MIN:
        raise SandboxError(f"{runsc} is too old: {trial.stdout.strip() or 'it names no version'}.", fix=FIX)
    return runsc
