"""The `potluck` command: verbs first. Each command is thin; what it does lives beside the SDK."""

from __future__ import annotations

import os
import sys

import click

from potluck import paths
from potluck.errors import Error
from potluck.version import __version__


class Potluck(click.Group):
    """Shows Potluck's own errors as three lines, without a traceback."""

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


def _register() -> None:
    from potluck.cli import (
        apps,
        bench,
        completion,
        containers,
        deploy,
        doctor,
        estimate,
        image,
        ledger,
        mesh,
        node,
        policy,
        rules,
        run,
        secret,
        serve,
        shared,
        shell,
        strangers,
        token,
        volume,
        watch,
    )

    for command in (run.run, deploy.deploy, serve.serve, apps.app, containers.container, completion.completion):
        main.add_command(command)
    for command in (node.up, node.down, node.status, node.pause, node.resume, node.tui, node.config):
        main.add_command(command)
    main.add_command(ledger.ledger)
    # Its commands are those of the mesh.
    assert strangers.peers.name in mesh.mesh.commands
    for command in (rules.reserve, rules.priority, rules.limit, rules.rules):
        mesh.mesh.add_command(command)
    main.add_command(mesh.mesh)
    main.add_command(mesh.join)
    main.add_command(estimate.estimate)
    main.add_command(image.image)
    main.add_command(secret.secret)
    main.add_command(shared.dict_)
    main.add_command(shared.queue)
    main.add_command(volume.volume)
    main.add_command(shell.shell)
    main.add_command(token.token)
    main.add_command(doctor.doctor)
    for command in (policy.policy, policy.drain, policy.panic, watch.watch):
        main.add_command(command)
    main.add_command(watch.log)
    main.add_command(bench.bench)


_register()

if __name__ == "__main__":
    sys.exit(main())
