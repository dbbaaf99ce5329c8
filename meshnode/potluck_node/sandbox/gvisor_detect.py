"""Finds a `runsc` that works here; says what to install."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Sequence

from potluck.errors import SandboxError

# Debian 12's own build of 2022 does not start on newer kernels; 2024 and later does.
RUNSC_VERSION_MIN = 20240101

# A trial takes 0.2 s; a machine that needs longer than this is broken.
TRIAL_TIMEOUT_S = 10.0

FIX = (
    "Install gVisor's runsc of 2024 or later (Debian 13 and Ubuntu 25.04 have it: sudo apt install runsc; others: "
    "gvisor.dev/docs/user_guide/install)."
)


def find(drop: Sequence[str], bwrap: str) -> str:
    """The path of a `runsc` that runs in a sandbox of bubblewrap as the user that `drop` becomes.

    Raises `SandboxError`.
    """
    runsc = shutil.which("runsc")
    if runsc is None:
        raise SandboxError("The strict sandboxes need gVisor, which is not installed.", fix=FIX)
    said = subprocess.run([runsc, "--version"], capture_output=True, text=True, timeout=TRIAL_TIMEOUT_S).stdout
    version = re.search(r"(\d{8})", said)
    if version is None or int(version[0]) < RUNSC_VERSION_MIN:
        raise SandboxError(f"{runsc} is too old: {said.strip() or 'it names no version'}.", fix=FIX)
    _try([*drop, bwrap], runsc)
    return runsc


def _try(command: list[str], runsc: str) -> None:
    """Run a program in a sandbox on the host's own root, read-only."""
    from potluck_node.sandbox import gvisor
    from potluck_node.sandbox.bwrap import memfd

    with contextlib.ExitStack() as files:
        config = memfd(json.dumps(gvisor.config([shutil.which("true") or "/bin/true"])).encode(), files)
        options = [*gvisor.outer(runsc), "--ro-bind", "/", gvisor.IMAGE, *gvisor.bundle(config)]
        done = subprocess.run(
            [*command, *options, "--", *gvisor.command()],
            capture_output=True, text=True, timeout=TRIAL_TIMEOUT_S, cwd="/", pass_fds=[config],
        )  # fmt: skip
    if done.returncode != 0:
        raise SandboxError("runsc is installed, but does not start here.", why=done.stderr.strip()[-300:], fix=FIX)
