"""`potluck tui`: the contributor's terminal."""

from __future__ import annotations

import importlib.util

import click

from potluck.errors import NodeStartError


@click.command()
@click.option("--demo", is_flag=True, help="Play a recorded node: needs none, and changes nothing.")
@click.option("--web", is_flag=True, help="In a browser of this machine, at an address that nobody can guess.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="With --web; any free one unless given.")
def tui(demo: bool, web: bool, port: int) -> None:
    """The terminal of the contributor: who uses this machine, and what it earned."""
    if not (importlib.util.find_spec("potluck_tui") and importlib.util.find_spec("textual")):
        raise NodeStartError("The terminal is not installed.", fix="pip install 'potluck[tui]'")
    # By name, since the SDK must work without it; in this process, since another interpreter takes a tenth of a second.
    terminal = importlib.import_module("potluck_tui.main")
    terminal.serve(demo=demo, port=port) if web else terminal.main(demo=demo)
