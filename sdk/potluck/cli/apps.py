"""`potluck app list|logs|stop`: apps that are deployed on this node, and those that run."""

from __future__ import annotations

import time
from collections.abc import Iterator

import click

from potluck.cli.completion import complete_app
from potluck.cli.connect import client
from potluck.cli.show import ago, as_json, named, print_json, print_table
from potluck.client import Client
from potluck.output import PlainOutput
from potluck.wire import control
from potluck.wire.apps import AppLogs, Apps, AppStopped, AskAppLogs, AskApps, LogLine, StopApp

# How long one question for news waits at the node, microseconds: so often a follower looks whether the app still lives.
FOLLOW_US = 1_000_000


@click.group()
def app() -> None:
    """Apps on this node: deployed ones, and those that run."""


@app.command("list")
@as_json
def list_apps(as_json: bool) -> None:
    """All apps that are deployed or run, by name."""
    connection = client()
    answer = connection.ask(AskApps, Apps)
    connection.close()
    if as_json:
        print_json([named(each) for each in answer.apps])
        return
    now_us = time.time_ns() // 1000
    rows = [
        (each.app, each.state, ago(each.since_us, now_us), str(each.functions or ""), str(each.calls or ""))
        for each in answer.apps
    ]
    print_table(("app", "state", "since", "functions", "calls"), rows, "No apps. Deploy one: potluck deploy FILE.py")


@app.command("logs")
@click.argument("name", metavar="APP", shell_complete=complete_app)
@click.option("-f", "--follow", is_flag=True, help="Go on until the app has ended.")
def logs(name: str, follow: bool) -> None:
    """What the functions of APP printed lately, on whichever machine they ran."""
    print_logs(name, "", follow)


@app.command("stop")
@click.argument("name", metavar="APP", shell_complete=complete_app)
def stop(name: str) -> None:
    """End all calls of APP and forget its deployment. Programs that wait for it get `InputCancellation`."""
    connection = client()
    answer = connection.ask(lambda number: StopApp(number, name), AppStopped)
    connection.close()
    calls = f"{answer.calls} call{'s' * (answer.calls != 1)} ended"
    click.echo(f"{name}: {calls}{', deployment removed' if answer.deployed else ''}.")


def print_logs(name: str, worker: str, follow: bool) -> int:
    """Print what an app ("" for any) or one worker printed; returns how many pieces there were."""
    output, count = PlainOutput(), 0
    connection = client()
    try:
        for line in _pieces(connection, name, worker, follow):
            output.log(control.CallLog(0, 0, line.worker, line.stream, line.data))
            count += 1
    except KeyboardInterrupt:
        pass  # how following ends
    finally:
        connection.close()
        output.close()
    return count


def _pieces(connection: Client, name: str, worker: str, follow: bool) -> Iterator[LogLine]:
    after, wait_us = 0, 0
    while True:
        answer = news(connection, name, after, wait_us, worker)
        if answer.missed and not worker:
            click.secho("(older output was dropped)", dim=True, err=True)
        yield from answer.lines
        if answer.lines:
            after = answer.lines[-1].number
        elif not follow or not answer.live:
            return
        wait_us = FOLLOW_US if follow else 0


def news(connection: Client, name: str, after: int, wait_us: int, worker: str = "") -> AppLogs:
    """What was printed since the piece with the number `after`."""
    return connection.ask(lambda number: AskAppLogs(number, name, after, wait_us, worker), AppLogs)
