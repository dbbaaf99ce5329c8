"""Starts the terminal: `potluck tui`, or `python -m potluck_tui.main`."""

from __future__ import annotations

import sys
from pathlib import Path

from potluck import paths
from potluck.errors import Error


def main(path: Path | None = None) -> None:
    """Show the node whose control socket is at `path`, or this user's node. Exits with 1 where there is no terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise SystemExit("error: `potluck tui` needs a terminal. For programs: `potluck status --json`.")
    try:
        path = path or paths.socket_path()
    except Error as error:
        raise SystemExit(f"error: {error}") from None
    from potluck_tui.app import PotluckApp

    PotluckApp(path).run()


if __name__ == "__main__":
    main()
