"""`potluck app list|logs|stop|history|rollback`: apps that are deployed on this node, and those that run."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import datetime

import click

from potluck.cli import options
from potluck.cli.completion import complete_app
from potluck.cli.connect import client
from potluck.cli.show import ago, as_json, named, print_json, print_table
from potluck.client import Client
from potluck.output import PlainOutput
from potluck.wire import control
from potluck.wire.apps import (
    AppFacts,
    AppHistory,
    AppLogs,
    Apps,
    AppStopped,
    AskAppLogs,
    AskApps,
    AskHistory,
    AskSchedules,
    LogLine,
    RollBack,
    RunSchedule,
    RunStarted,
    Schedule,
    Schedules,
    StopApp,
)

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
        (
            each.app, each.state, ago(each.since_us, now_us), f"v{each.version}" if each.version else "",
            str(each.functions or ""), str(each.calls or ""),
        )
        for each in answer.apps
    ]  # fmt: skip
    print_table(
        ("app", "state", "since", "version", "functions", "calls"), rows, "No apps. Deploy one: potluck deploy FILE.py"
    )


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


@app.command("history")
@click.argument("name", metavar="APP", shell_complete=complete_app)
@as_json
def history(name: str, as_json: bool) -> None:
    """The versions of APP that were deployed, the newest first."""
    connection = client()
    versions = connection.ask(lambda number: AskHistory(number, name), AppHistory).versions
    connection.close()
    if as_json:
        print_json([named(each) for each in versions])
        return
    now_us = time.time_ns() // 1000
    rows = [
        (
            f"v{each.version}", each.state, ago(each.at_us, now_us), each.author, each.tag, each.digest[:12],
            " ".join(filter(None, (f"v{each.source} again" if each.source else "", each.comment, each.why))),
        )
        for each in versions
    ]  # fmt: skip
    print_table(("version", "state", "deployed", "by", "tag", "digest", "comment"), rows, "No versions.")


@app.command("rollback")
@click.argument("name", metavar="APP", shell_complete=complete_app)
@click.argument("version", default="")
@options.strategy
def rollback(name: str, version: str, strategy: str) -> None:
    """Deploy an earlier VERSION of APP again (such as v3), or the one before this."""
    from potluck.deploy import author

    found = re.fullmatch(r"v?([1-9]\d{0,15})", version)
    if version and not found:
        raise click.UsageError(f"{version!r} is no version; write v3, say.")
    wanted = int(found[1]) if found else 0
    connection = client()
    facts = connection.ask(lambda number: RollBack(number, name, wanted, author(), strategy), AppFacts)
    connection.close()
    click.echo(f"{name} is deployed as it was, as version {facts.version}.")


@app.command("schedules")
@click.argument("name", metavar="APP", default="", shell_complete=complete_app)
@as_json
def schedules(name: str, as_json: bool) -> None:
    """When functions of APP, or of all apps, run by themselves, and how it went."""
    connection = client()
    found = connection.ask(lambda number: AskSchedules(number, name), Schedules).schedules
    connection.close()
    if as_json:
        print_json([named(each) for each in found])
        return
    now_us = time.time_ns() // 1000
    rows = [
        (
            each.app, each.function, in_words(each.schedule),
            datetime.fromtimestamp(each.next_us / 1e6).isoformat(" ", "seconds") if each.next_us else "never",
            f"{each.runs[0].state}, {ago(each.runs[0].at_us, now_us)}" if each.runs else "",
            each.runs[0].why if each.runs else "",
        )
        for each in found
    ]  # fmt: skip
    print_table(("app", "function", "schedule", "next", "last", "why"), rows, "No schedules.")


def in_words(schedule: Schedule) -> str:
    """As it was written, about."""
    if schedule.cron:
        return f"{schedule.cron} ({schedule.timezone})"
    parts = (f"{schedule.months} months" if schedule.months else "", f"{schedule.us / 1e6:g} s" if schedule.us else "")
    return "every " + " and ".join(filter(None, parts))


@app.command("run-schedule")
@click.argument("name", metavar="APP", shell_complete=complete_app)
@click.argument("function")
def run_schedule(name: str, function: str) -> None:
    """Run the scheduled FUNCTION of APP now; its schedule goes on as it was."""
    connection = client()
    started = connection.ask(lambda number: RunSchedule(number, name, function), RunStarted)
    connection.close()
    click.echo(f"{function} runs as {started.call}. See `potluck app logs {name}`.")


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
