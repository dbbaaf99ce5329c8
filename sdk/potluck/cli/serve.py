"""`potluck serve FILE.py`: an app that is deployed as long as this command runs, and anew whenever its code changes.

Each version of the code lives in a process of its own (`serving`), so that nothing of the one before is left in memory.
Whoever calls by name gets the newest version that could be loaded; calls that are under way are not touched.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from typing import NamedTuple

import click

from potluck.cli.apps import news
from potluck.cli.connect import client
from potluck.cli.options import written_for
from potluck.client import Client
from potluck.output import PlainOutput
from potluck.wire import control

# How long one look for prints waits, microseconds: so often the files are looked at.
LOOK_US = 500_000
# A version that is replaced has only a connection to close.
END_TIMEOUT_S = 10.0


@click.command()
@written_for
@click.argument("target", metavar="FILE.py[::APP]", type=click.Path())
@click.option("-q", "--quiet", is_flag=True, help="Only what functions print.")
def serve(target: str, quiet: bool) -> None:
    """Keep an app deployed while this runs, and deploy it anew whenever its files change.

    What its functions print appears here, whoever calls them. Ends with Ctrl-C, or `potluck app stop`.
    """
    served = Served(target, quiet)
    signal.signal(signal.SIGINT, served.interrupt)
    try:
        served.run()
    except KeyboardInterrupt:
        pass  # how it ends
    finally:
        served.close()


class Version(NamedTuple):
    """The code as it was at some time: the process that holds its deployment, and what it was read from."""

    process: subprocess.Popen[bytes]
    app: str
    files: dict[str, int]
    urls: dict[str, str]


class Served:
    """One `potluck serve`."""

    def __init__(self, target: str, quiet: bool) -> None:
        self._target, self._quiet = target, quiet
        self._version: Version | None = None
        self._output = PlainOutput()
        self._tried: dict[str, int] = {}
        self._over = False

    def interrupt(self, *_: object) -> None:
        """Handles SIGINT. An exception that is raised while some object is deleted is lost, so it is noted, too."""
        self._over = True
        raise KeyboardInterrupt

    def run(self) -> None:
        """Serve until the app is stopped. Returns at once when the first version cannot be loaded, exit status 1."""
        version = self._version = start_version(self._target)
        if version is None:
            raise SystemExit(1)
        self._tell(f"{version.app} is served; Ctrl-C ends it.")
        self._tell_urls(version.urls)
        connection = client()
        try:
            self._follow(connection, version)
        finally:
            connection.close()

    def _follow(self, connection: Client, version: Version) -> None:
        after = _latest(connection, version.app)
        while not self._over:
            answer = news(connection, version.app, after, LOOK_US)
            for line in answer.lines:
                self._output.log(control.CallLog(0, 0, line.worker, line.stream, line.data))
                after = line.number
            if not answer.live:
                self._tell(f"{version.app} was stopped.")
                return
            version = self._version = self._renewed(version)

    def _renewed(self, old: Version) -> Version:
        """The next version when files have changed and could be loaded; else the same."""
        now = stamps(old.files)
        if now == (self._tried or old.files):
            return old
        self._tried = now
        new = start_version(self._target)
        if new is None:
            self._tell("This cannot be loaded; the version before is still served.")
            return old
        self._tried = {}
        end_version(old)
        self._tell(f"{new.app} was loaded anew.")
        self._tell_urls({name: url for name, url in new.urls.items() if old.urls.get(name) != url})
        return new

    def _tell_urls(self, urls: dict[str, str]) -> None:
        for name, url in urls.items():
            self._tell(f"  {name}  ←  {url}")

    def _tell(self, text: str) -> None:
        if not self._quiet:
            click.secho(text, dim=True, err=True)

    def close(self) -> None:
        self._output.close()
        if self._version:
            end_version(self._version)


def stamps(files: Iterable[str]) -> dict[str, int]:
    """When each was written last, in ns; 0 when it is not there, as while an editor saves it."""
    return {name: _stamp(name) for name in files}


def _stamp(name: str) -> int:
    try:
        return os.stat(name).st_mtime_ns
    except OSError:
        return 0


def start_version(target: str) -> Version | None:
    """Have a new process load and deploy the app; None when it could not, which it has explained."""
    reading, writing = os.pipe()
    try:
        # In a session of its own: Ctrl-C is ours, and ends it by closing its standard input.
        process = subprocess.Popen(
            [sys.executable, "-m", "potluck.cli.serving", target, str(writing)],
            stdin=subprocess.PIPE, pass_fds=(writing,), start_new_session=True,
        )  # fmt: skip
    finally:
        os.close(writing)
    with open(reading, "rb") as report:
        text = report.read()
    if not text:
        process.wait()
        return None
    facts = json.loads(text)
    return Version(process, facts["app"], facts["files"], facts["urls"])


def end_version(version: Version) -> None:
    assert version.process.stdin
    version.process.stdin.close()
    try:
        version.process.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        version.process.kill()
        version.process.wait()


def _latest(connection: Client, app: str) -> int:
    """The number of the newest piece that is there already."""
    after = 0
    while lines := news(connection, app, after, 0).lines:
        after = lines[-1].number
    return after
