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
    source = source_of(path, demo=demo)
    with FirstFrame(source):
        from potluck_tui.app import PotluckApp

        app = PotluckApp(source)
    app.run()


def serve(*, demo: bool, port: int) -> None:
    """The same in a browser, until interrupted. Exits with 1 where that cannot be."""
    source_of(demo=demo)
    try:
        from potluck_tui.web import serve
    except ImportError:
        raise SystemExit(
            "error: What serves browsers is not installed.\n  fix: pip install 'potluck[tui,web]'"
        ) from None
    try:
        serve(demo, port)
    except OSError as error:
        raise SystemExit(
            f"error: Port {port} cannot be listened on: {error.strerror}\n  fix: Give another --port."
        ) from None


def source_of(path: Path | None = None, *, demo: bool) -> Source:
    """Exits with 1 where there is no place for a node."""
    if demo:
        from potluck_tui.demo import Demo, load

        return Demo(load())
    try:
        return LocalNode(path or paths.socket_path())
    except Error as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
