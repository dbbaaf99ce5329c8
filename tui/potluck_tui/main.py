"""Starts the terminal: `potluck tui`, or `python -m potluck_tui.main`."""

from __future__ import annotations

import sys
from pathlib import Path

from potluck import paths
from potluck.errors import Error
from potluck_tui.first import FirstFrame
from potluck_tui.source import LocalNode, Source


def main(path: Path | None = None, *, demo: bool = False) -> None:
    """Show the node whose control socket is at `path`, or this user's node, or a recording. Exits with 1 where there is
    no terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise SystemExit("error: `potluck tui` needs a terminal. For programs: `potluck status --json`.")
    try:
        source = _source(path, demo)
    except Error as error:
        raise SystemExit(f"error: {error}") from None
    with FirstFrame(source):
        from potluck_tui.app import PotluckApp

        app = PotluckApp(source)
    app.run()


def _source(path: Path | None, demo: bool) -> Source:
    if demo:
        from potluck_tui.demo import Demo, load

        return Demo(load())
    return LocalNode(path or paths.socket_path())


if __name__ == "__main__":
    main()
