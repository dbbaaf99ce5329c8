"""`potluck shell`: look around in an image, or where a function would run."""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
from types import ModuleType
from typing import Any

import click

from potluck import wire
from potluck.app import LocalEntrypoint
from potluck.cli.completion import complete_target
from potluck.cli.find import apps_in
from potluck.cli.options import written_for
from potluck.cli.run import choose, load
from potluck.errors import InvalidError, NodeStartError
from potluck.functions import Function
from potluck.wire import FunctionSpec


@click.command()
@written_for
@click.argument("place", metavar="IMAGE|FILE.py[::FUNCTION]", shell_complete=complete_target)
@click.option("-c", "--cmd", default="", help="Run this command instead of a shell (of a function only).")
def shell(place: str, cmd: str) -> None:
    """Open a shell in an image, or where a function would run on this machine.

    IMAGE is an image id: the shell is that of build steps, as root and with the network. A build step that failed names
    the image of the state before it. With FILE.py::FUNCTION it is the function's own sandbox: its image, environment,
    secrets, limits and network, but no GPU. What you change is thrown away.
    """
    if importlib.util.find_spec("potluck_node") is None:
        raise NodeStartError("A shell needs the node's sandbox.", fix="Install it with: pip install 'potluck[node]'")
    if "::" in place or place.endswith(".py"):
        raise SystemExit(_function_shell(_prepare(place), shlex.split(cmd)))
    if cmd:
        raise InvalidError("--cmd is for functions.", fix="Type it: echo COMMAND | potluck shell IMAGE")
    raise SystemExit(subprocess.run([sys.executable, "-m", "potluck_node.shell", place], check=False).returncode)


def _prepare(place: str) -> FunctionSpec:
    """Have the image of the function built. Raises `InvalidError` for an entrypoint, which has none."""
    from potluck.deploy import of_no_object

    path, _, name = place.partition("::")
    module = load(path)
    classes = {key: cls for app in apps_in(module).values() for key, cls in app.registered_classes.items()}
    function = of_no_object(classes[name]) if name in classes else _function(module, name, path)
    with function.app.run():
        return function.app._require_run(name).spec(function)


def _function(module: ModuleType, name: str, path: str) -> Function[..., Any]:
    app, chosen = choose(module, name, path)
    if isinstance(chosen, LocalEntrypoint):
        raise InvalidError(
            f"{chosen.__name__} is an entrypoint, which runs on this machine itself.",
            fix=f"Name a function: {', '.join(f'{path}::{each}' for each in app.registered_functions)}",
        )
    return chosen


def _function_shell(function: FunctionSpec, command: list[str]) -> int:
    """The specification travels in a descriptor: arguments can be read by every user, and it may have secrets."""
    descriptor = os.memfd_create("potluck-function")
    with os.fdopen(descriptor, "wb+") as file:
        file.write(wire.encode(function))
        file.seek(0)
        words = [sys.executable, "-m", "potluck_node.function_shell", str(descriptor), *command]
        return subprocess.run(words, pass_fds=(descriptor,), check=False).returncode
