"""`potluck status --calls`: why each call waits, and where it would run."""

from __future__ import annotations

import click

from potluck.cli.show import printable
from potluck.wire.control import CallStatus


def print_calls(calls: tuple[CallStatus, ...]) -> None:
    """A heading for each call, and below it what the node thinks of each peer."""
    for call in calls:
        note = f": {printable(call.note)}" if call.note else ""
        click.secho(f"{printable(call.function)}, {done(call)} done{note}", bold=True)
        for line in call.would:
            click.echo(f"  {printable(line)}")
    if not calls:
        click.echo("No open calls.")


def done(call: CallStatus) -> str:
    return f"{call.inputs - call.waiting} of {call.inputs}"
