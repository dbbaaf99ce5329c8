"""Apps that outlive a terminal: deployed, listed, logged, stopped, served, detached."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.e2e import app_sample as sample
from tests.e2e.mesh import PATIENCE_S, Mesh, run_cli, wait_until

import potluck
from potluck import calls, found
from potluck.errors import InputCancellation, NotFoundError
from potluck.wire.apps import AppFacts, AskApp

ROOT = Path(__file__).resolve().parent.parent.parent
FILE = "tests/e2e/app_sample.py"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    mesh = Mesh(tmp_path_factory.mktemp("mesh"))
    try:
        yield mesh.node("ann", "--cpus", "2", "--memory-mib", "2048")
    finally:
        mesh.stop()


@pytest.fixture
def node(nodes, use_node, monkeypatch):
    monkeypatch.setattr(calls, "_connection", None)
    monkeypatch.setattr(found, "_link", None)
    yield use_node(nodes)
    for connection in (calls._connection, found._link):
        if connection:
            connection.close()
    for app in listed(nodes):
        run_cli(nodes, "app", "stop", app)


def potluck_cli(node, *arguments):
    done = run_cli(node, *arguments, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def listed(node):
    """What `app list` says, by name."""
    return {each.pop("app"): each for each in json.loads(potluck_cli(node, "app", "list", "--json"))}


def facts(node, app="lasting"):
    client = node.client()
    try:
        return client.ask(lambda number: AskApp(number, app), AppFacts)
    finally:
        client.close()


def start_cli(node, *arguments, cwd=ROOT):
    return subprocess.Popen(
        [sys.executable, "-m", "potluck.cli.main", *arguments],
        env=node.env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def is_running(node):
    return any(worker.state == "running" for worker in node.status().workers)


def test_a_deployment_survives_a_restart_and_is_replaced_by_the_next(node):
    told = potluck_cli(node, "deploy", FILE)
    assert 'potluck.Function.from_name("lasting", "greet")' in told
    assert "Counter .add" in told
    before = listed(node)["lasting"]
    assert (before["state"], before["functions"], before["calls"]) == ("deployed", 3, 0)
    greet = potluck.Function.from_name("lasting", "greet")
    assert greet.remote("before") == "hello before"
    node.stop()
    node.start()
    assert listed(node) == {"lasting": before}
    assert greet.remote("after") == "hello after"
    assert potluck_cli(node, "deploy", "-q", FILE) == ""
    assert listed(node)["lasting"]["since_us"] > before["since_us"]


def test_what_is_recorded_is_enough_to_call_it(node):
    potluck_cli(node, "deploy", FILE, "--name", "other")
    found = {each.name: each for each in facts(node, "other").functions}
    assert found["greet"].spec.app == "other"
    assert [method.name for method in found["Counter"].methods] == ["add"]
    assert [(each.name, each.kind) for each in found["Counter"].parameters] == [("start", "int")]
    told = json.loads(potluck_cli(node, "deploy", FILE, "--json"))
    assert [each["name"] for each in told["functions"]] == ["greet", "token", "Counter"]
    sample.app.deploy(name="third", show_progress=False)
    assert set(listed(node)) == {"other", "lasting", "third"}


def test_functions_and_classes_are_found_by_name(node):
    potluck_cli(node, "deploy", FILE)
    assert potluck.Function.from_name("lasting", "greet").remote("from afar") == "hello from afar"
    counter = potluck.Cls.from_name("lasting", "Counter")
    assert counter(start=40).add.remote(2) == 42
    assert list(counter().add.map([1, 2])) == [1, 2]


def test_secrets_are_kept_for_the_function_and_shown_to_nobody(node):
    told = potluck_cli(node, "deploy", FILE) + potluck_cli(node, "deploy", "--json", FILE)
    assert potluck.Function.from_name("lasting", "token").remote() == "hunter2"
    told += potluck_cli(node, "app", "list", "--json") + potluck_cli(node, "status", "--json")
    assert "hunter2" not in told
    assert "hunter2" not in node.log.read_text()
    assert b"hunter2" not in b"".join(file.read_bytes() for file in node.home.glob("state.sqlite*"))
    for file in node.home.glob("state.sqlite*"):
        assert file.stat().st_mode & 0o077 == 0, file


def test_stopping_forgets_the_deployment(node):
    potluck_cli(node, "deploy", FILE)
    assert "deployment removed" in potluck_cli(node, "app", "stop", "lasting")
    assert listed(node) == {}
    again = run_cli(node, "app", "stop", "lasting")
    assert again.returncode == 1
    assert "No app named lasting" in again.stderr
    with pytest.raises(NotFoundError):
        facts(node)


def test_an_app_that_runs_is_listed_until_its_program_ends(node):
    with sample.app.run(show_progress=False):
        assert listed(node)["lasting"]["state"] == "running"
    wait_until(lambda: not listed(node), "the end of the run")


def test_stopping_ends_the_calls_of_a_running_program(node):
    with sample.app.run(show_progress=False):
        spawned = sample.greet.spawn("left", seconds=600)
        stopper = threading.Thread(target=stop_once_running, args=(node,))
        stopper.start()
        with pytest.raises(InputCancellation, match="lasting was stopped"):
            sample.greet.remote("asked", seconds=600)
        stopper.join()
        with pytest.raises(InputCancellation):
            spawned.get()
        with pytest.raises(InputCancellation, match="lasting was stopped"):
            list(sample.greet.map(["another", "more"]))
        with pytest.raises(InputCancellation):
            sample.greet.spawn("late")
    wait_until(lambda: not is_running(node), "the work's end")
    with sample.app.run(show_progress=False):
        assert sample.greet.remote("again") == "hello again"
        assert sample.greet.spawn("again").get() == "hello again"


async def test_stopping_ends_calls_in_asyncio_too(node):
    import asyncio

    import trio

    async def call():
        with sample.app.run(show_progress=False):
            task = asyncio.create_task(sample.greet.remote.aio("asked", seconds=600))
            await asyncio.to_thread(stop_once_running, node, 1)
            with pytest.raises(InputCancellation, match="lasting was stopped"):
                await task
            with pytest.raises(InputCancellation):
                await sample.greet.remote.aio("again")

    await trio.to_thread.run_sync(asyncio.run, call())


def stop_once_running(node, calls=2):
    wait_until(lambda: listed(node)["lasting"]["calls"] == calls and is_running(node), "the calls")
    run_cli(node, "app", "stop", "lasting")


def test_prints_are_kept_whoever_called(node, capfd):
    with sample.app.run(show_progress=False):
        sample.greet.remote("ada")
        assert sample.greet.spawn("bob", seconds=1).get() == "hello bob"
    shown = capfd.readouterr().out
    assert "greeting ada" in shown
    assert "greeting bob" in shown
    kept = potluck_cli(node, "app", "logs", "lasting")
    assert [line.split("│ ")[1] for line in kept.splitlines()][-2:] == ["greeting ada", "greeting bob"]
    worker = kept.splitlines()[-1].split(" │")[0]
    assert "greeting bob" in potluck_cli(node, "container", "logs", worker)


def test_logs_are_followed_until_the_app_ends(node):
    with sample.app.run(show_progress=False):
        follower = start_cli(node, "app", "logs", "--follow", "lasting")
        sample.greet.remote("the follower")
        first = follower.stdout.readline()
        while "the follower" not in first:
            first = follower.stdout.readline()
    assert follower.wait(PATIENCE_S) == 0
    follower.stdout.close()


def test_workers_are_listed(node):
    with sample.app.run(show_progress=False):
        sample.greet.remote("worker")
        workers = json.loads(potluck_cli(node, "container", "list", "--json"))
        assert {(each["function"], each["own"]) for each in workers} >= {("greet", True)}
        assert "you" in potluck_cli(node, "container", "list")
    absent = run_cli(node, "container", "logs", "nobody-7")
    assert absent.returncode == 1
    assert "No worker named nobody-7" in absent.stderr


def test_names_that_are_not_known_are_explained(node):
    potluck_cli(node, "deploy", FILE)
    missed = run_cli(node, "app", "logs", "lastin")
    assert missed.returncode == 1
    assert "Did you mean lasting?" in missed.stderr


def test_a_detached_call_goes_on_without_its_program(node):
    run = start_cli(node, "run", "--detach", f"{FILE}::greet", "--name", "cat", "--seconds", "3")
    call = run.stdout.readline().split()[0]
    wait_until(lambda: is_running(node), "the call running")
    run.kill()
    run.communicate()
    wait_until(lambda: listed(node)["lasting"]["state"] == "detached", "the program's end")
    assert potluck.FunctionCall.from_id(call).get() == "hello cat"
    assert "greeting cat" in potluck_cli(node, "app", "logs", "lasting")


def test_a_detached_entrypoint_goes_on_without_its_terminal(node, tmp_path):
    place, (ours, theirs) = tmp_path / "note.txt", os.openpty()
    run = subprocess.Popen(
        [sys.executable, "-m", "potluck.cli.main", "run", "-d", FILE, "--place", str(place), "--seconds", "1"],
        env=node.env, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    wait_until(place.with_suffix(".begun").exists, "the entrypoint's begin")
    os.close(ours)
    run.send_signal(signal.SIGHUP)
    assert run.wait(PATIENCE_S) == 0
    assert place.read_text() == "hello note"


# Serving

SERVED = """
import potluck
try:
    import servedhelper
except ImportError:
    pass  # in the sandbox, where nobody needs it
app = potluck.App("served")

@app.function()
def version() -> int:
    print("this is {0}")
    return {0}
"""


@pytest.fixture
def served(node, tmp_path):
    """A file that is being served, and the process that does."""
    file = tmp_path / "servedmodule.py"
    file.write_text(SERVED.format(1))
    (tmp_path / "servedhelper.py").touch()
    process = start_cli(node, "serve", str(file))
    try:
        wait_until(lambda: listed(node).get("served", {}).get("state") == "serving", "the first version")
        yield file, process
    finally:
        process.kill()
        process.communicate()


def test_a_served_app_is_loaded_anew_when_its_file_changes(node, served):
    file, process = served
    first, version = facts(node, "served"), potluck.Function.from_name("served", "version")
    assert first.state == "serving"
    assert version.remote() == 1
    file.write_text("def broken(:\n")
    while "still served" not in (line := process.stdout.readline()):
        assert line
    assert facts(node, "served") == first
    file.write_text(SERVED.format(2))
    wait_until(lambda: facts(node, "served").created_us > first.created_us, "the second version")
    wait_until(lambda: version.remote() == 2, "calls of the second version")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 0
    wait_until(lambda: not listed(node), "the end of serving")


def test_a_module_that_it_imports_counts_too(node, served):
    file, _ = served
    first = facts(node, "served")
    file.with_name("servedhelper.py").write_text("changed = True\n")
    wait_until(lambda: facts(node, "served").created_us > first.created_us, "the second version")


def test_stopping_an_app_ends_its_serving(node, served):
    _, process = served
    potluck_cli(node, "app", "stop", "served")
    assert process.wait(PATIENCE_S) == 0
    assert "was stopped" in process.stdout.read()


def test_a_file_that_cannot_be_served_ends_the_command(node, tmp_path):
    done = run_cli(node, "serve", str(tmp_path / "absent.py"))
    assert done.returncode == 1
    assert "There is no file" in done.stderr
    assert "Traceback" not in done.stderr


def test_why_a_call_waits_is_explained(node):
    assert potluck_cli(node, "status", "--calls") == "No open calls.\n"
    with sample.app.run(show_progress=False):
        call = sample.greet.spawn_map(["one", "two", "three"], kwargs={"seconds": 600})
        wait_until(lambda: [each.state for each in node.status().workers].count("running") == 2, "two inputs")
        shown = potluck_cli(node, "status", "--calls")
        assert shown.startswith("greet, 0 of 3 done")
        assert "\n  ann: runs 2 of 2 at once" in shown
        (facts,) = json.loads(potluck_cli(node, "status", "--calls", "--json"))
        assert (facts["function"], facts["inputs"], facts["waiting"]) == ("greet", 3, 3)
        assert facts["would"][0].startswith("ann: runs")
        call.cancel()
