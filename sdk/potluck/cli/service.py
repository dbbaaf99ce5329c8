"""The node as a service of systemd: `potluck up --service`, `potluck down --service`.

An ordinary user gets a unit of its own manager, with control groups of its own (`Delegate=`), so that memory and
processors of sandboxes can be limited; root gets one of the system.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from potluck import paths
from potluck.errors import ExecutionError, NotFoundError

# systemd answers at once, or waits for a node that stops: which gives its leases six seconds.
TIMEOUT_S = 60.0

_UNIT = """\
[Unit]
Description=Potluck: lends this machine to a mesh
After=network-online.target
Wants=network-online.target

[Service]
ExecStart={command}
Environment={home}
Restart=on-failure
RestartSec=5
# Leases are closed and receipts signed.
TimeoutStopSec=30
KillMode=mixed
# Sandboxes are limited in control groups below this one.
Delegate=yes
LimitNOFILE=16384
# Whatever the owner does comes first.
OOMScoreAdjust=200
CPUWeight=50
IOWeight=50

[Install]
WantedBy={target}
"""


def install(arguments: Sequence[str]) -> Path:
    """Write the unit, and start it now and at each boot or login; returns the file. Raises `ExecutionError`."""
    _check_manager()
    file = place()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(unit(arguments))
    _systemctl("daemon-reload")
    _systemctl("enable", file.name)
    # Also where an older one runs: with the new settings.
    _systemctl("restart", file.name)
    return file


def remove() -> Path:
    """Stop it, and never start it again. Raises `NotFoundError`, `ExecutionError`."""
    file = place()
    if not file.exists():
        raise NotFoundError("The node is no service here.", fix="Stop it with: potluck down")
    _check_manager()
    _systemctl("disable", "--now", file.name)
    file.unlink()
    _systemctl("daemon-reload")
    return file


def place() -> Path:
    """The unit's file. A node for a further mesh has a unit of its own."""
    on = os.environ.get("POTLUCK_ON")
    name = f"potluck-{on}.service" if on else "potluck.service"
    if os.geteuid() == 0:
        return Path("/etc/systemd/system") / name
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return config / "systemd" / "user" / name


def unit(arguments: Sequence[str]) -> str:
    """The unit of a node with these flags (systemd.unit(5), systemd.service(5))."""
    words = [sys.executable, "-m", "potluck_node.main", *arguments]
    return _UNIT.format(
        command=" ".join(_quoted(word.replace("$", "$$")) for word in words),
        home=_quoted(f"POTLUCK_HOME={paths.home().absolute()}"),
        target="multi-user.target" if os.geteuid() == 0 else "default.target",
    )


def _quoted(word: str) -> str:
    """As one word (systemd.syntax(7)), in which "%" means itself."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("\n", "\\n")
    return f'"{escaped}"'


def _check_manager() -> None:
    try:
        _systemctl("show", "--property=Version")
    except (FileNotFoundError, ExecutionError) as error:
        raise ExecutionError(
            "systemd does not run services here.",
            why=str(getattr(error, "why", "") or error),
            fix="Start `potluck up` from whatever starts your programs instead.",
        ) from None


def _systemctl(*words: str) -> None:
    """Raises `ExecutionError` with what it said."""
    command = ["systemctl", *([] if os.geteuid() == 0 else ["--user"]), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ExecutionError(f"{' '.join(command)} took more than {TIMEOUT_S:g} s.") from None
    if done.returncode:
        raise ExecutionError(f"{' '.join(command)} failed.", why=done.stderr.strip() or f"status {done.returncode}")
