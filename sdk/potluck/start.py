"""Finding the local node, and starting one when there is none."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from potluck import paths
from potluck.client import Client
from potluck.errors import ConnectionError, InvalidError, NodeStartError
from potluck.place import is_local
from potluck.session import Listener

# A node is up in about a second; one that needs longer than this has failed, or the disk is very slow.
START_TIMEOUT_S = 30.0
# How much of the node's log an error shows.
LOG_TAIL_LINES = 8


def path() -> Path:
    """The control socket of the node that `connect` uses."""
    return paths.socket_path()


def connect(listener: Listener) -> Client:
    """Connect to the local node, or start an embedded one: it serves this machine only, and ends when unused.

    Raises `NodeStartError` when no node runs and none can be started, `InvalidError` in a sandbox.
    """
    if not is_local():
        raise InvalidError(
            "There is no way to the node from within a sandbox.",
            why="code that runs on a machine must not place calls in its owner's name",
            fix="Return what is to be called, or asked for, to the program.",
        )
    try:
        return Client(path(), listener)
    except ConnectionError:
        pass
    launch(["--embedded"])
    return Client(path(), listener)


def launch(arguments: list[str]) -> None:
    """Start a node in the background and return when it serves. Raises `NodeStartError` with the end of its log."""
    if importlib.util.find_spec("potluck_node") is None:
        raise NodeStartError(
            "No node runs on this machine, and none can be started.",
            why="the package that makes a node is not installed",
            fix="Install it with: pip install 'potluck[node]'",
        )
    log = paths.home() / "node.log"
    try:
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
        with log.open("ab") as sink:
            node = subprocess.Popen(
                [sys.executable, "-m", "potluck_node.main", *arguments],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=sink, start_new_session=True,
            )  # fmt: skip
    except OSError as error:
        raise NodeStartError(
            "No node runs on this machine, and none can be started.",
            why=str(error),
            fix="Set POTLUCK_HOME to a folder that can be written.",
        ) from None
    _await_ready(node, log)


def _await_ready(node: subprocess.Popen[bytes], log: Path) -> None:
    """The node closes its standard output after the word "ready"."""
    import select

    assert node.stdout
    with node.stdout as out:
        readable, _, _ = select.select([out], [], [], START_TIMEOUT_S)
        word = os.read(out.fileno(), 16) if readable else b""
    if word.startswith(b"ready"):
        return
    if not readable:
        node.kill()
    node.wait()
    tail = log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    raise NodeStartError(
        "The node could not be started.", why="\n    ".join(tail) or "it gave no reason", fix=f"The whole log: {log}"
    )
