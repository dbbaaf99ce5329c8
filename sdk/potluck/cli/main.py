"""The `potluck` command: verbs first. Each command is thin; what it does lives beside the SDK."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from potluck import paths
from potluck.errors import Error
from potluck.version import __version__

# Where each command is. One is loaded when it is used: all of them take a quarter of a second.
COMMANDS = {
    "app": "potluck.cli.apps.app",
    "bench": "potluck.cli.bench.bench",
    "call": "potluck.cli.calls.call",
    "completion": "potluck.cli.completion.completion",
    "config": "potluck.cli.node.config",
    "container": "potluck.cli.containers.container",
    "deploy": "potluck.cli.deploy.deploy",
    "dict": "potluck.cli.shared.dict_",
    "doctor": "potluck.cli.doctor.doctor",
    "down": "potluck.cli.node.down",
    "drain": "potluck.cli.policy.drain",
    "estimate": "potluck.cli.estimate.estimate",
    "history": "potluck.cli.history.history",
    "image": "potluck.cli.image.image",
    "join": "potluck.cli.mesh.join",
    "ledger": "potluck.cli.ledger.ledger",
    "log": "potluck.cli.watch.log",
    "mesh": "potluck.cli.mesh_commands.mesh",
    "panic": "potluck.cli.policy.panic",
    "pause": "potluck.cli.node.pause",
    "policy": "potluck.cli.policy.policy",
    "queue": "potluck.cli.shared.queue",
    "resume": "potluck.cli.node.resume",
    "run": "potluck.cli.run.run",
    "secret": "potluck.cli.secret.secret",
    "serve": "potluck.cli.serve.serve",
    "shell": "potluck.cli.shell.shell",
    "status": "potluck.cli.node.status",
    "token": "potluck.cli.token.token",
    "tui": "potluck.cli.tui.tui",
    "up": "potluck.cli.node.up",
    "volume": "potluck.cli.volume.volume",
    "watch": "potluck.cli.watch.watch",
}


class Potluck(click.Group):
    """Shows Potluck's own errors as three lines, without a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context | None, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].rpartition(".")
        command: click.Command = getattr(import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except Error as error:
            click.secho("error: ", fg="red", bold=True, nl=False, err=True)
            click.echo(str(error), err=True)
            raise SystemExit(1) from None


@click.group(cls=Potluck, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="potluck")
@click.option("--on", metavar="MESH", help="Use this machine's further node for another mesh; also POTLUCK_ON.")
def main(on: str | None) -> None:
    """Everyone brings a GPU: run Python functions on a mesh of machines."""
    if on is not None:
        os.environ["POTLUCK_ON"] = on
    paths.home()


if __name__ == "__main__":
    sys.exit(main())
