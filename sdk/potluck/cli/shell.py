"""`potluck shell`: look around in an image."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import click

from potluck.errors import NodeStartError


@click.command()
@click.argument("image")
def shell(image: str) -> None:
    """Open a shell in IMAGE (an image id), as root in the sandbox of build steps, with the network.

    What you change there is thrown away. A build step that failed names the image of the state before it.
    """
    if importlib.util.find_spec("potluck_node") is None:
        raise NodeStartError("A shell needs the node's sandbox.", fix="Install it with: pip install 'potluck[node]'")
    raise SystemExit(subprocess.run([sys.executable, "-m", "potluck_node.shell", image], check=False).returncode)
