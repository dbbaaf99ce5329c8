"""Real nodes for end-to-end tests: processes with their own data folders, speaking libp2p over loopback."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.e2e.forks import Forked, fork

from potluck.cli.ledger import fetch_journal
from potluck.client import Client
from potluck.output import PlainOutput
from potluck.wire import control
from potluck_ledger.journal import Record

# Generous: these machines are slow and shared, and nothing here is a measurement.
PATIENCE_S = 60


class Node:
    """One node process. `flags` as for `potluck-node`."""

    module = "potluck_node.main"
    # The path of its network namespace, where that is not the tests' own.
    network = ""

    def __init__(self, folder: Path, name: str, *flags: str, env: Mapping[str, str] | None = None) -> None:
        self.home, self.name, self.flags, self._env = folder / name, name, flags, env or {}
        self.process: Forked | None = None

    @property
    def env(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("POTLUCK_")}
        return kept | {"POTLUCK_HOME": str(self.home), **self._env}

    @property
    def log(self) -> Path:
        return self.home.with_suffix(".log")

    def start(self) -> Node:
        self.process = fork(self.module, ["--name", self.name, *self.flags], self.env, self.log, self.network)
        readable, _, _ = select.select([self.process.stdout], [], [], PATIENCE_S)
        word = os.read(self.process.stdout.fileno(), 16) if readable else b""
        assert word == b"ready\n", self.log.read_text()[-3000:]
        return self

    def client(self) -> Client:
        return Client(self.home / "node.sock", PlainOutput(), "test")

    def status(self) -> control.Status:
        client = self.client()
        try:
            return client.ask(control.AskStatus, control.Status)
        finally:
            client.close()

    def journal(self) -> tuple[str, list[Record]]:
        client = self.client()
        try:
            return fetch_journal(client)
        finally:
            client.close()

    @property
    def address(self) -> str:
        return self.status().addresses[0]

    def kill(self) -> None:
        """As pulling the plug."""
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """As `potluck down`; returns the exit status."""
        if self.process is None or self.process.poll() is not None:
            return 0
        self.process.terminate()
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


class Mesh:
    """Makes nodes that know each other, and stops them all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes: list[Node] = []

    def node(self, name: str, *flags: str, env: Mapping[str, str] | None = None) -> Node:
        if self.nodes:
            flags = ("--bootstrap", self.nodes[0].address, *flags)
        # So that the tests pass on machines without control groups, too.
        node = Node(self.folder, name, "--without-limits", *flags, env=env).start()
        self.nodes.append(node)
        return node

    def caller(self, name: str = "cas", *flags: str) -> Node:
        return self.node(name, "--no-offer", *flags)

    def provider(self, name: str, *flags: str) -> Node:
        return self.node(name, "--cpus", "1", "--memory-mib", "1024", *flags)

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Poll, since the other side is another process; the limit only ends a broken test."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE_S} s"
        time.sleep(0.05)


def run_cli(node: Node, *arguments: str, cwd: Path | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run `potluck …` against a node."""
    entering = ["nsenter", f"--net={node.network}"] if node.network else []
    return subprocess.run(
        [*entering, sys.executable, "-m", "potluck.cli.main", *arguments],
        env=node.env,
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 2,
        check=False,
    )
