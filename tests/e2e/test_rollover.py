"""Versions take over under load, never when they cannot start, and go back."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from tests.e2e.load import Load
from tests.e2e.mesh import PATIENCE_S, run_cli, wait_until
from tests.e2e.websocket import Socket
from wsproto.events import TextMessage

SOURCE = Path(__file__).with_name("web_rollover.py").read_text()
GATEWAY = ("--gateway", "127.0.0.1:0", "--cpus", "2", "--memory-mib", "3000")


@pytest.fixture
def node(mesh, use_node):
    return use_node(mesh.node("solo", *GATEWAY))


@pytest.fixture
def program(tmp_path):
    """Writes the program in a version; returns where it is."""
    place = tmp_path / "rolling.py"

    def write(version):
        place.write_text(SOURCE.replace('VERSION = "one"', f'VERSION = "{version}"'))
        return str(place)

    return write


def deploy(node, program, *flags):
    done = run_cli(node, "deploy", "--json", *flags, program)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["functions"][0]["url"]


def history(node):
    return {each["version"]: each for each in json.loads(run_cli(node, "app", "history", "rolling", "--json").stdout)}


def test_versions_take_over_and_go_back_under_load(node, program):
    url = deploy(node, program("one"), "--tag", "first", "--comment", "what it was")
    assert httpx.get(url, timeout=PATIENCE_S).text == "one"
    channel = Socket(url)
    with Load(lambda client: client.get(url)) as load:
        wait_until(lambda: "one" in load.answered, "an answer")
        deploy(node, program("two"))
        # It was warm before it took over, so that nobody waits for it to start.
        wait_until(lambda: load.answered[-1] == "two", "the new version")
        channel.send(TextMessage(data="which are you?"))
        assert channel.message() == "one"
        refused = run_cli(node, "deploy", program("broken"))
        assert refused.returncode == 1
        assert "Version 3 of rolling does not take over" in refused.stderr
        assert "this version cannot start" in refused.stderr
        done = run_cli(node, "app", "rollback", "rolling")
        assert "version 4" in done.stdout, done.stderr
        wait_until(lambda: load.answered[-1] == "one", "the version before")
    assert load.failed == []
    assert set(load.answered) == {"one", "two"}
    channel.send(TextMessage(data="still there?"))
    assert channel.message() == "one"
    found = history(node)
    assert {number: each["state"] for number, each in found.items()} == {
        4: "current", 3: "failed", 2: "past", 1: "past"
    }  # fmt: skip
    assert (found[4]["source"], found[4]["tag"], found[1]["comment"]) == (1, "first", "what it was")
    assert found[4]["digest"] == found[1]["digest"]
    assert "@" in found[1]["author"]
    listed = json.loads(run_cli(node, "app", "list", "--json").stdout)
    assert [(each["app"], each["version"], each["tag"]) for each in listed] == [("rolling", 4, "first")]


def test_a_node_killed_on_the_way_to_a_version_has_the_one_before(node, program):
    url = deploy(node, program("one"))
    assert httpx.get(url, timeout=PATIENCE_S).text == "one"
    with subprocess.Popen(
        [sys.executable, "-m", "potluck.cli.main", "deploy", "-q", program("slow")],
        env=node.env, stderr=subprocess.PIPE, text=True,
    ) as deploying:  # fmt: skip
        wait_until(lambda: history(node).get(2, {}).get("state") == "rolling", "the second version on its way")
        assert httpx.get(url, timeout=PATIENCE_S).text == "one"
        node.kill()
        assert deploying.wait(PATIENCE_S) == 1
    node.start()
    assert {number: each["state"] for number, each in history(node).items()} == {2: "failed", 1: "current"}
    again = deploy(node, program("three"))
    assert httpx.get(again, timeout=PATIENCE_S).text == "three"


def test_at_once_when_asked_to(node, program):
    url = deploy(node, program("one"))
    channel = Socket(url)
    channel.send(TextMessage(data="?"))
    assert channel.message() == "one"
    deploy(node, program("broken"), "--strategy", "recreate")
    assert channel.next().code == 1012
    assert httpx.get(url, timeout=PATIENCE_S).status_code == 500
    assert "is no version" in run_cli(node, "app", "rollback", "rolling", "first").stderr
    assert run_cli(node, "app", "rollback", "rolling", "v1", "--strategy", "recreate").returncode == 0
    assert httpx.get(url, timeout=PATIENCE_S).text == "one"
