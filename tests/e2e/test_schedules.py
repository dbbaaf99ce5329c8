"""Schedules on one node, and on three that share a PostgreSQL of which one is killed."""

import json
import time
from contextlib import suppress
from itertools import pairwise

import httpx
import pytest
from tests.e2e.mesh import PATIENCE_S, run_cli, wait_until
from tests.postgres import Postgres, missing

import potluck
from potluck import found

FILE = "tests/e2e/schedule_sample.py"
SECOND_US = 1_000_000


@pytest.fixture
def url():
    if why := missing():
        pytest.skip(why)
    server = Postgres()
    yield server.url
    server.stop()


def cli(node, *arguments):
    done = run_cli(node, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def schedules(node):
    return {each["function"]: each for each in json.loads(cli(node, "app", "schedules", "nightly", "--json"))}


def test_a_function_runs_by_itself_and_when_it_is_told_to(mesh, use_node):
    node = use_node(mesh.node("solo", "--cpus", "2", "--memory-mib", "2048"))
    cli(node, "deploy", "-q", FILE)
    wait_until(lambda: len([run for run in schedules(node)["tick"]["runs"] if run["state"] == "done"]) >= 2, "two runs")
    first, second = [run["due_us"] for run in schedules(node)["tick"]["runs"]][:2]
    assert first - second == 2 * SECOND_US
    assert "tick of h" in cli(node, "app", "logs", "nightly")
    night = schedules(node)["nightly"]
    assert night["runs"] == []
    assert time.time() < night["next_us"] / SECOND_US < time.time() + 25 * 3600
    assert "runs as fc-" in cli(node, "app", "run-schedule", "nightly", "nightly")
    wait_until(lambda: schedules(node)["nightly"]["runs"][0]["state"] == "failed", "its end")
    assert "not tonight" in schedules(node)["nightly"]["runs"][0]["why"]
    assert "every 2 s" in cli(node, "app", "schedules")
    cli(node, "app", "stop", "nightly")
    assert cli(node, "app", "schedules") == "No schedules.\n"


def test_the_example_runs(mesh, use_node):
    node = use_node(mesh.node("solo", "--cpus", "2", "--memory-mib", "2048"))
    cli(node, "deploy", "-q", "examples/nightly.py")
    for function in ("look", "report"):
        cli(node, "app", "run-schedule", "nightly", function)
        wait_until(lambda name=function: schedules(node)[name]["runs"][0]["state"] == "done", "its end")
    assert "looks so far: 1" in cli(node, "app", "logs", "nightly")


def sharing(mesh, url, name):
    """A node that shares its apps with others."""
    (mesh.folder / name).mkdir(mode=0o711)
    (mesh.folder / name / "config.toml").write_text(f'state = "{url}"\ntrust = "mesh"\ngateway = "127.0.0.1:0"\n')
    return mesh.node(name, "--cpus", "1", "--memory-mib", "1024")


def _check_minutes(node, killed_us):
    """The cron ran once at each full minute, also at one after the death."""

    def runs():
        return schedules(node)["minutely"]["runs"]

    def has_run():
        return any(run["state"] == "done" and run["due_us"] > killed_us for run in runs())

    # The next minute may be as far away as one wait lasts.
    for _ in range(2):
        if not has_run():
            with suppress(AssertionError):
                wait_until(has_run, "a full minute")
    assert has_run()
    due = [run["due_us"] for run in runs()]
    assert all(earlier - later == 60 * SECOND_US for earlier, later in pairwise(due))
    assert due[0] % (60 * SECOND_US) == 0


def test_each_time_runs_once_on_three_nodes_of_which_one_is_killed(mesh, use_node, url, monkeypatch):
    ann, bob, eve = [sharing(mesh, url, name) for name in ("ann", "bob", "eve")]
    wait_until(lambda: all(len(node.status().peers) == 2 for node in (ann, bob, eve)), "finding each other")
    cli(ann, "deploy", "-q", FILE)
    wait_until(lambda: len(schedules(ann)["tick"]["runs"]) >= 2, "two runs")
    images = ann.status().images
    wait_until(lambda: all(node.status().images >= images for node in (bob, eve)), "the images on all nodes")
    # Whoever holds the lease dies, and with it the node that built the images.
    ann.kill()
    killed_us = round(time.time() * SECOND_US)
    wait_until(
        lambda: any(run["state"] == "done" and run["due_us"] > killed_us for run in schedules(bob)["tick"]["runs"]),
        "a run on another node",
    )
    runs = schedules(eve)["tick"]["runs"]
    due = [run["due_us"] for run in runs]
    assert len(set(due)) == len(due)
    assert all((earlier - later) % (2 * SECOND_US) == 0 for earlier, later in pairwise(due))
    assert len({run["call"] for run in runs}) == len(runs)
    _check_minutes(eve, killed_us)
    # What ann deployed is called and answered elsewhere.
    monkeypatch.setattr(found, "_link", None)
    use_node(eve)
    assert potluck.Function.from_name("nightly", "tick").remote() == "ticked"
    found._link.close()
    monkeypatch.setattr(found, "_link", None)
    use_node(bob)
    page = potluck.Function.from_name("nightly", "page").get_web_url()
    assert httpx.get(page, timeout=PATIENCE_S).text == "a page"
    found._link.close()
