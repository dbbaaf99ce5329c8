"""`potluck watch` and `potluck log`: what happens on this node, as it happens."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import click
import msgspec

from potluck import paths
from potluck.changes import Change, changes
from potluck.cli.connect import ask_status, client
from potluck.cli.show import printable
from potluck.errors import ConnectionError, InvalidError, NotFoundError
from potluck.wire import control

# As often as the terminal looks: a status is 1 KiB and a fraction of a millisecond.
LOOK_S = 0.5
# A node is back a second after its start.
RETRY_S = 1.0
# A notice that nobody shows is not worth waiting for.
NOTIFY_TIMEOUT_S = 5.0
LINES = 50
# Read of the end of a log, bytes: more than so many lines.
TAIL_BYTES = 256 << 10


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each line.")
@click.option("--notify", is_flag=True, help="Show what is important on the desktop, too (notify-send).")
@click.option("--important", is_flag=True, help="Only what is important: pauses, use by others, GPUs, warnings.")
def watch(as_json: bool, notify: bool, important: bool) -> None:
    """Tell what happens on this node until interrupted: who runs what, pauses, GPUs, calls, peers."""
    if notify and shutil.which("notify-send") is None:
        raise InvalidError(
            "There is no notify-send here.", fix="Install it (Debian: libnotify-bin), or watch without --notify."
        )
    ask_status()
    try:
        follow(lambda found: _tell(found, as_json, notify, important))
    except KeyboardInterrupt:
        raise SystemExit(0) from None


def follow(tell: Callable[[Iterable[Change]], None]) -> None:
    """For ever, also over restarts of the node."""
    before: control.Status | None = None
    while True:
        try:
            connection = client()
            try:
                while True:
                    now = connection.ask(control.AskStatus, control.Status)
                    tell(changes(before, now))
                    before = now
                    time.sleep(LOOK_S)
            finally:
                connection.close()
        except ConnectionError:
            if before:
                tell([Change("down", time.time_ns() // 1000, f"{before.name} does not answer")])
            before = None
            time.sleep(RETRY_S)


def _tell(found: Iterable[Change], as_json: bool, notify: bool, important: bool) -> None:
    for change in found:
        if important and not change.is_important:
            continue
        if as_json:
            click.echo(msgspec.json.encode(change).decode())
        else:
            clock = time.strftime("%H:%M:%S", time.localtime(change.at_us / 1e6))
            click.echo(f"{clock}  {printable(change.text)}")
        if notify and change.is_important:
            _notify(printable(change.text))
    sys.stdout.flush()


def _notify(text: str) -> None:
    try:
        subprocess.run(["notify-send", "--app-name=Potluck", "Potluck", text], timeout=NOTIFY_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        click.echo(f"not shown on the desktop: {error}", err=True)


@click.command()
@click.option("-n", "--lines", type=click.IntRange(0, 10_000), default=LINES, show_default=True, help="How many.")
@click.option("-f", "--follow", "follows", is_flag=True, help="Go on with what comes, until interrupted.")
@click.option("--level", type=click.Choice(("info", "warning", "error")), default="info", help="The least serious.")
def log(lines: int, follows: bool, level: str) -> None:
    """The log of this node. One that systemd runs has its log there: journalctl --user -u potluck."""
    file = paths.home() / "node.log"
    if not file.exists():
        raise NotFoundError(
            f"There is no log at {file}.", fix="A service's log is in the journal: journalctl --user -u potluck"
        )
    show = _shower(level)
    at = _show_tail(file, lines, show)
    try:
        while follows:
            at = _show_from(file, at, show)
            time.sleep(LOOK_S)
    except KeyboardInterrupt:
        raise SystemExit(0) from None


def _shower(level: str) -> Callable[[Iterable[str]], None]:
    """Lines without a level, such as a traceback's, belong to the one before."""
    order = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
    least, shown = order.index(level.upper()), True

    def show(lines: Iterable[str]) -> None:
        nonlocal shown
        for line in lines:
            words = line.split(" ", 3)
            if len(words) > 2 and words[2] in order:
                shown = order.index(words[2]) >= least
            if shown:
                click.echo(printable(line))

    return show


def _show_tail(file: Path, lines: int, show: Callable[[Iterable[str]], None]) -> int:
    with file.open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(0, size - TAIL_BYTES))
        text = log.read(size - max(0, size - TAIL_BYTES)).decode(errors="replace")
    show(text.splitlines()[-lines:] if lines else ())
    return size


def _show_from(file: Path, at: int, show: Callable[[Iterable[str]], None]) -> int:
    """Whole lines that are new. From the beginning, if the file is shorter than it was."""
    with file.open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(at if size >= at else 0)
        data = log.read(TAIL_BYTES)
        whole = data[: data.rfind(b"\n") + 1]
        show(whole.decode(errors="replace").splitlines())
        return log.tell() - len(data) + len(whole)
