"""Where a node keeps its things, and where its clients find it."""

from __future__ import annotations

import os
from pathlib import Path

from potluck.errors import InvalidError

# sockaddr_un.sun_path holds 108 bytes with its final NUL (unix(7)).
SOCKET_PATH_MAX = 107


def home() -> Path:
    """The data folder: $POTLUCK_HOME, else $XDG_DATA_HOME/potluck, else ~/.local/share/potluck."""
    if chosen := os.environ.get("POTLUCK_HOME"):
        return Path(chosen).absolute()
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "potluck"


def socket_path(data: Path | None = None) -> Path:
    """The control socket: $POTLUCK_SOCKET, else in the runtime folder, else in the data folder.

    A node with a data folder of its own (`data`, or $POTLUCK_HOME) has its socket there. Raises `InvalidError` when the
    path is longer than the system allows.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if chosen := os.environ.get("POTLUCK_SOCKET"):
        path = Path(chosen).absolute()
    elif data is None and not os.environ.get("POTLUCK_HOME") and runtime:
        path = Path(runtime) / "potluck" / "node.sock"
    else:
        path = (data or home()) / "node.sock"
    if len(os.fsencode(path)) > SOCKET_PATH_MAX:
        raise InvalidError(
            f"The control socket's path is too long: {path}",
            why=f"the system allows {SOCKET_PATH_MAX} bytes",
            fix="Set POTLUCK_SOCKET to a short path, for example /tmp/potluck.sock.",
        )
    return path
