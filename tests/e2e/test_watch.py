"""`potluck watch` and `potluck log` of a real node."""

import json
import os
import signal
import subprocess
import sys

import pytest
from tests.e2e import sample
from tests.e2e.mesh import run_cli, wait_until

from potluck import calls


@pytest.fixture
def watching(mesh):
    """A provider, a caller, and what a watch of the provider has said so far."""
    caller, ann = mesh.caller(), mesh.provider("ann")
    wait_until(lambda: [peer.name for peer in caller.status().peers] == ["ann"], "finding ann")
    out = mesh.folder / "watch.out"
    bin_folder = mesh.folder / "bin"
    bin_folder.mkdir()
    script = bin_folder / "notify-send"
    script.write_text(f'#!/bin/sh\necho "$@" >> {mesh.folder}/notified\n')
    script.chmod(0o755)
    env = ann.env | {"PATH": f"{bin_folder}:{os.environ['PATH']}"}
    with out.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "potluck.cli.main", "watch", "--json", "--notify"], env=env, stdout=file
        )
    yield caller, ann, lambda: [json.loads(line) for line in out.read_text().splitlines()], mesh.folder / "notified"
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0


def test_what_happens_is_told_over_a_restart(watching, use_node, monkeypatch):
    monkeypatch.setattr(calls, "_connection", None)
    caller, ann, said, notified = watching

    def kinds():
        return [change["kind"] for change in said()]

    wait_until(lambda: "up" in kinds(), "the first look")
    use_node(caller)
    with sample.app.run(show_progress=False):
        assert sample.sleep.remote(1.5) == 1.5
    wait_until(lambda: "runs" in kinds() and {"done", "ended"} & set(kinds()), "the work")
    assert run_cli(ann, "pause", "--reason", "lunch").returncode == 0
    wait_until(lambda: any(change["text"] == "paused: lunch" for change in said()), "the pause")
    assert run_cli(ann, "resume").returncode == 0
    wait_until(lambda: "resumed" in kinds(), "the end of the pause")
    wait_until(lambda: "paused: lunch" in notified.read_text(), "the notice on the desktop")
    ann.stop()
    wait_until(lambda: "down" in kinds(), "seeing it stop")
    ann.start()
    wait_until(lambda: kinds().count("up") == 2, "seeing it start")


def test_the_log_is_shown_from_its_end_and_by_level(mesh):
    ann = mesh.caller("ann")
    assert "There is no log" in run_cli(ann, "log").stderr
    log = ann.home / "node.log"
    lines = [f"2027-01-01 00:00:0{number},000 INFO potluck: line {number}" for number in range(9)]
    lines.insert(4, "2027-01-01 00:00:03,500 ERROR potluck: broken\x1b[2J")
    lines.insert(5, "Traceback of it")
    log.write_text("\n".join(lines) + "\n")
    assert run_cli(ann, "log", "-n", "2").stdout.splitlines() == [line.strip() for line in lines[-2:]]
    assert run_cli(ann, "log", "--level", "error").stdout.splitlines() == [
        "2027-01-01 00:00:03,500 ERROR potluck: broken[2J", "Traceback of it"
    ]  # fmt: skip
    out = mesh.folder / "log.out"
    words = [sys.executable, "-m", "potluck.cli.main", "log", "-n", "0", "-f"]
    with out.open("wb") as file:
        process = subprocess.Popen(words, env=ann.env, stdout=file)
    try:
        wait_until(lambda: _append(log, "more\n") and "more\n" in out.read_text(), "the new line")
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def _append(file, text):
    with file.open("a") as log:
        return log.write(text)
