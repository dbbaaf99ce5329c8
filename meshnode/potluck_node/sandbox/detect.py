"""What this machine lets us do; says what to install or enable."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from potluck.errors import SandboxError
from potluck_node.sandbox import cgroups, seccomp

# `--disable-userns` and repeated seccomp programs came with 0.8 (Debian 12).
BWRAP_VERSION_MIN = (0, 8)

# A trial takes 10 ms; a machine that needs longer than this is broken.
TRIAL_TIMEOUT_S = 10.0

INSTALL = "sudo apt install bubblewrap"
ROOT_TOOLS = ("mount", "setpriv", "unshare")

# (sysctl file, value that forbids user namespaces, command that allows them)
_SWITCHES = (
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (or give bwrap an AppArmor profile)",
    ),
    ("kernel/unprivileged_userns_clone", "0", "sudo sysctl -w kernel.unprivileged_userns_clone=1"),
    ("user/max_user_namespaces", "0", "sudo sysctl -w user.max_user_namespaces=15000"),
)


@dataclass(frozen=True)
class Machine:
    """A machine on which sandboxes work."""

    bwrap: str
    version: str
    groups: cgroups.Cgroups

    def describe(self) -> str:
        """One line for `potluck doctor`."""
        return f"bubblewrap {self.version}; {self.groups.describe()}"


def detect(
    prefix: Sequence[str] = (), *, groups: cgroups.Cgroups | None = None, sysctl: Path = Path("/proc/sys")
) -> Machine:
    """Try the whole of it once. `prefix` is the command that drops root's rights; `groups` replaces what is found.

    Raises `SandboxError` with the command that would help.
    """
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise SandboxError("Sandboxes need bubblewrap, which is not installed.", fix=f"Install it: {INSTALL}")
    _require_tools(prefix)
    version = _version(bwrap)
    seccomp.programs()
    _try_namespaces([*prefix, bwrap], sysctl)
    return Machine(bwrap, version, cgroups.detect() if groups is None else groups)


def _require_tools(prefix: Sequence[str]) -> None:
    """As root, sandboxes are made ready with these; containers may lack them."""
    missing = [tool for tool in ROOT_TOOLS if prefix and shutil.which(tool) is None]
    if missing:
        raise SandboxError(
            f"As root, sandboxes need {', '.join(missing)}.", fix="Install them: apt install util-linux mount"
        )


def _version(bwrap: str) -> str:
    said = subprocess.run([bwrap, "--version"], capture_output=True, text=True, timeout=TRIAL_TIMEOUT_S).stdout
    numbers = re.search(r"(\d+)\.(\d+)(\.\d+)?", said)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < BWRAP_VERSION_MIN:
        need = ".".join(map(str, BWRAP_VERSION_MIN))
        raise SandboxError(
            f"{bwrap} is too old: {said.strip() or 'it names no version'}; {need} or newer is needed.",
            fix=f"Upgrade it (Debian 12 and Ubuntu 24.04 have it): {INSTALL}",
        )
    return numbers[0]


def _try_namespaces(command: list[str], sysctl: Path) -> None:
    trial = ["--unshare-all", "--unshare-user", "--disable-userns", "--ro-bind", "/", "/", "--proc", "/proc", "--"]
    true = shutil.which("true") or "/bin/true"
    done = subprocess.run(
        [*command, *trial, true], capture_output=True, text=True, timeout=TRIAL_TIMEOUT_S, cwd="/", env=os.environ
    )
    if done.returncode != 0:
        raise SandboxError(
            "This machine does not let bubblewrap make namespaces.",
            why=done.stderr.strip() or f"bwrap ended with status {done.returncode}",
            fix=_advice(sysctl),
        )


def _advice(sysctl: Path) -> str:
    for name, forbidding, command in _SWITCHES:
        try:
            value = (sysctl / name).read_text().strip()
        except OSError:
            continue
        if value == forbidding:
            return f"Allow user namespaces: {command}"
    return "In a container, start it with `--security-opt seccomp=unconfined --security-opt systempaths=unconfined`."
