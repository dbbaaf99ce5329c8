"""`potluck container list|logs|exec|stop`: the workers on this node, whoever uses them."""

from __future__ import annotations

import functools
import tempfile

import click

from potluck import terminal
from potluck.cli.apps import print_logs
from potluck.cli.completion import complete_worker
from potluck.cli.connect import ask_status, client
from potluck.cli.show import ago, as_json, print_json, print_table
from potluck.errors import NotFoundError, RefusedError
from potluck.wire import control
from potluck.wire.apps import CommandEnded, EndWork, RunCommand


@click.group()
def container() -> None:
    """Workers on this node. WORKER is a name as in the list."""


@container.command("list")
@as_json
def list_workers(as_json: bool) -> None:
    """All workers on this node: for whom, what they run, since when."""
    status = ask_status()
    names = {peer.peer: peer.name for peer in status.peers} | {status.peer: "you"}
    if as_json:
        print_json([_facts(each, status) for each in status.workers])
        return
    rows = [
        (each.worker, each.function, names.get(each.caller, each.caller[-8:]), each.state, _since(each, status))
        for each in status.workers
    ]
    print_table(("worker", "function", "for", "state", "since"), rows, "No workers.")


def _facts(worker: control.WorkerStatus, status: control.Status) -> dict[str, object]:
    return {
        "worker": worker.worker,
        "function": worker.function,
        "caller": worker.caller,
        "own": worker.caller == status.peer,
        "state": worker.state,
        "since_us": worker.since_us,
    }


def _since(worker: control.WorkerStatus, status: control.Status) -> str:
    return ago(worker.since_us, status.now_us)


@container.command("logs")
@click.argument("worker", shell_complete=complete_worker)
@click.option("-f", "--follow", is_flag=True, help="Go on until interrupted.")
def logs(worker: str, follow: bool) -> None:
    """What WORKER printed lately for calls of yours, here or on a peer."""
    if not print_logs("", worker, follow):
        _explain_silence(worker)


def _explain_silence(worker: str) -> None:
    """Raises `NotFoundError`, or `RefusedError` for a worker of somebody else; one of ours just printed nothing."""
    status = ask_status()
    found = [each for each in status.workers if each.worker == worker]
    if not found:
        raise NotFoundError(f"No worker named {worker} has printed anything.", fix="See `potluck container list`.")
    if found[0].caller != status.peer:
        raise RefusedError(f"{worker} does not work for you.", why="what it prints goes to its caller alone")


@container.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("worker", shell_complete=complete_worker)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(worker: str, command: tuple[str, ...]) -> None:
    """Run COMMAND in the sandbox of WORKER, which works for you on this machine. Ends with its exit status."""
    with tempfile.TemporaryDirectory(prefix="potluck-") as folder:
        status = _execute(worker, command, f"{folder}/channel")
    raise SystemExit(status if status >= 0 else 128 - status)


@container.command("stop")
@click.argument("worker", shell_complete=complete_worker)
def stop(worker: str) -> None:
    """End what the function of WORKER does here for its caller, somebody else.

    It runs elsewhere, and is not taken again for ten minutes. Nothing is held against anybody.
    """
    connection = client()
    try:
        connection.ask(lambda number: EndWork(number, worker), control.Done)
    finally:
        connection.close()
    click.echo("Ended: it runs elsewhere, and comes back in ten minutes at the earliest.")


def _execute(worker: str, command: tuple[str, ...], path: str) -> int:
    connection, channel = client(), terminal.Channel(path)
    try:
        with terminal.raw():
            ask = functools.partial(_question, worker, command, path)
            status = connection.ask(ask, CommandEnded).status
            channel.close()
            return status
    finally:
        connection.close()


def _question(worker: str, command: tuple[str, ...], path: str, number: int) -> RunCommand:
    return RunCommand(number, worker, command, path, *terminal.size())
