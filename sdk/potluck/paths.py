"""Where a node keeps its things, and where its clients find it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from potluck.errors import InvalidError

# sockaddr_un.sun_path holds 108 bytes with its final NUL (unix(7)).
SOCKET_PATH_MAX = 107


# Below the data folder of the first node of a user: one folder for each further node, and what they all lend.
_MESHES, _SHARED = "meshes", "lent"


def home() -> Path:
    """The data folder: `base()`, or that of the node that $POTLUCK_ON names. Raises `InvalidError`."""
    chosen = os.environ.get("POTLUCK_ON")
    return home_of(chosen) if chosen else base()


def base() -> Path:
    """$POTLUCK_HOME, else $XDG_DATA_HOME/potluck, else ~/.local/share/potluck."""
    if chosen := os.environ.get("POTLUCK_HOME"):
        return Path(chosen).absolute()
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "potluck"


def home_of(mesh: str) -> Path:
    """The data folder of the user's node for a further mesh. Raises `InvalidError`."""
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,31}", mesh):
        fix = "Use up to 32 letters, digits, '-', '_' and '.'."
        raise InvalidError(f"{mesh!r:.80} is not a name for one of your meshes.", fix=fix)
    return base() / _MESHES / mesh


def further() -> tuple[str, ...]:
    """The names of the user's further meshes on this machine."""
    folder = base() / _MESHES
    return tuple(sorted(each.name for each in folder.iterdir() if each.is_dir())) if folder.is_dir() else ()


def shared_folder(data: Path) -> Path:
    """Where all nodes of a user tell what they lend of the machine; `data` is the data folder of one of them."""
    return (data.parent.parent if data.parent.name == _MESHES else data) / _SHARED


def socket_path(data: Path | None = None, on: str | None = None) -> Path:
    """The control socket: $POTLUCK_SOCKET, else in the runtime folder, else in the data folder.

    A node with a data folder of its own (`data`, or $POTLUCK_HOME) has its socket there; so has one that systemd runs.
    `on` names one of the user's nodes instead of $POTLUCK_ON; "" is the first. Raises `InvalidError` when the path is
    longer than the system allows.
    """
    name = os.environ.get("POTLUCK_ON", "") if on is None else on
    beside = (data or (home_of(name) if name else base())) / "node.sock"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if (chosen := os.environ.get("POTLUCK_SOCKET")) and on is None:
        path = Path(chosen).absolute()
    elif data is None and not os.environ.get("POTLUCK_HOME") and runtime:
        path = Path(runtime) / "potluck" / f"{name or 'node'}.sock"
        if beside.exists() and not path.exists():
            path = beside
    else:
        path = beside
    if len(os.fsencode(path)) > SOCKET_PATH_MAX:
        raise InvalidError(
            f"The control socket's path is too long: {path}",
            why=f"the system allows {SOCKET_PATH_MAX} bytes",
            fix="Set POTLUCK_SOCKET to a short path, for example /tmp/potluck.sock.",
        )
    return path
