"""`potluck call list|cancel`, and `potluck status --calls`: why each call waits, and where it would run."""

from __future__ import annotations

from functools import partial

import click

from potluck.cli.connect import ask_status, client
from potluck.cli.show import as_json, named, print_json, print_table, printable
from potluck.wire import control
from potluck.wire.apps import EndCall
from potluck.wire.control import CallStatus


@click.group()
def call() -> None:
    """Open calls of this node's programs, and spawned ones. CALL is a name as in the list."""


@call.command("list")
@as_json
def list_calls(as_json: bool) -> None:
    """All open calls: their app and function, how far they are, and what they wait for."""
    calls = ask_status().calls
    if as_json:
        print_json([named(each) for each in calls])
        return
    rows = [(each.call, each.app, each.function, done(each), each.note) for each in calls]
    print_table(("call", "app", "function", "done", ""), rows, "No open calls.")


@call.command("cancel")
@click.argument("calls", nargs=-1, required=True, metavar="CALL…")
def cancel(calls: tuple[str, ...]) -> None:
    """End calls, and leave others of their apps alone: whoever waits for one gets InputCancellation."""
    connection = client()
    try:
        for name in calls:
            connection.ask(partial(_end, name), control.Done)
            click.echo(f"{name} is cancelled.")
    finally:
        connection.close()


def _end(call: str, number: int) -> EndCall:
    return EndCall(number, call, "cancelled by the owner of its node")


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
