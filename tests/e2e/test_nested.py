"""Functions that call functions: on a machine that the outer one fills, through peers that are not trusted, and to
the end of either."""

import asyncio
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import trio
from tests.e2e import nested_broken_sample as half
from tests.e2e import nested_sample as sample
from tests.e2e import nested_web_sample as answering
from tests.e2e.mesh import Mesh, run_cli, wait_until

import potluck
from potluck import Dict, calls, deploy
from potluck.errors import ImageBuildError, InvalidError, NotFoundError, RefusedError, SerializationError
from potluck.wire import apps

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def lone(tmp_path_factory):
    """A node that lends one CPU, which any function fills."""
    made = Mesh(tmp_path_factory.mktemp("lone"))
    try:
        yield made.node("ann", "--cpus", "1", "--memory-mib", "8192", "--gateway", "127.0.0.1:0")
    finally:
        made.stop()


@pytest.fixture
def on(use_node, monkeypatch):
    """Run the sample's app on a node."""
    runs = []

    def start(node):
        monkeypatch.setattr(calls, "_connection", None)
        use_node(node)
        run = sample.app.run(show_progress=False)
        runs.append((run, run.__enter__()))
        return node

    yield start
    for run, _ in runs:
        run.__exit__(None, None, None)
    if calls._connection:
        calls._connection.close()


@pytest.fixture
def full(lone, on):
    return on(lone)


@pytest.fixture
def strangers(trio_of_nodes, on):
    """Functions run on two peers that are not trusted, with a CPU each."""
    return on(trio_of_nodes.nodes[0])


def test_all_ways_of_calling_on_a_machine_that_the_first_function_fills(full):
    assert sample.outer.remote(3) == 10
    assert sample.maps.remote(40) == [*(each * each for each in range(40)), 0, 1, 4]
    assert sample.gathers.remote(4) == [0, 1, 4, 9, 0, 1, 4]
    assert sample.drains.remote(200) == (0, sum(range(200)))
    assert sample.scales.remote(7) == 21
    assert list(sample.outer.map(range(8))) == [each * each + 1 for each in range(8)]
    assert list(sample.side_by_side.map(range(8))) == [each * each for each in range(8)]


def test_exceptions_arrive_as_their_own_type_in_the_function_and_the_program(full):
    assert sample.catches.remote() == "caught -1 is negative"
    assert sample.catches_odd.remote() == ("odd", 7)
    with pytest.raises(ValueError, match="-2 is negative"):
        sample.outer.remote(-2)
    with pytest.raises(InvalidError, match="other settings inside a function"):
        sample.changes.remote()


def test_a_function_calls_itself_as_deep_as_there_is_room(full):
    assert sample.factorial.remote(5) == 120
    assert sample.even.remote(5) is False
    with pytest.raises(InvalidError, match="8 calls wait for each other"):
        sample.factorial.remote(12)


def test_large_values_travel_and_larger_ones_are_refused(full):
    assert sample.large.remote(8) == 8 << 20
    with pytest.raises(InvalidError, match="Arguments of 101 MiB"):
        sample.large.remote(101)


def test_spawned_calls_go_on_and_are_known_everywhere(full):
    value, number = sample.spawns.remote(6)
    assert value == 36
    assert potluck.FunctionCall.from_id(number).get() == 36


def test_an_image_is_built_when_a_function_wants_it(full):
    assert sample.asks_which.remote() == "other"
    assert sample.asks_which.remote() == "other"
    with half.app.run(show_progress=False), pytest.raises(ImageBuildError, match="false"):
        half.asks_broken.remote()


async def test_also_when_the_program_waits_in_asyncio(full):
    assert await trio.to_thread.run_sync(asyncio.run, sample.asks_which.remote.aio()) == "other"


def test_applications_call_functions(full):
    with answering.app.run(show_progress=False):
        for page, square in ((answering.page, "49"), (answering.apage, "36")):
            for _ in range(2):
                value, number = httpx.get(page.get_web_url(), timeout=60).text.split()
                assert value == square
                assert number.startswith("in-web")


def test_what_runs_knows_its_numbers(full):
    call = sample.places.spawn()
    assert call.get() == (call.object_id, f"in-{call.object_id[3:]}-0")
    assert potluck.current_function_call_id() is potluck.current_input_id() is None
    found = list(sample.places_beside.map(range(6)))
    assert len({each[0] for each in found}) == 1
    assert [each[1] for each in found] == [each[2] for each in found]
    assert len({each[1] for each in found}) == 6


def test_retries_make_their_calls_anew(full):
    with Dict.ephemeral() as shelf:
        assert sample.tries.remote(shelf) == 25


def running(node):
    return [worker for worker in node.status().workers if worker.state == "running"]


def test_what_a_cancelled_function_called_ends(full):
    with Dict.ephemeral() as shelf:
        call = sample.waits_for.spawn(shelf)
        wait_until(lambda: "began" in shelf, "the inner function")
        assert len(running(full)) == 2
        call.cancel()
        wait_until(lambda: not running(full), "the end of both")
        assert not full.status().calls


def test_a_spawned_function_still_calls_others_when_its_program_is_gone(lone, on):
    node = on(lone)
    program = (
        "from tests.e2e.nested_sample import app, outer\n"
        "with app.run(show_progress=False):\n    print(outer.spawn(4).object_id, flush=True)\n"
    )
    done = run_python(node, program)
    assert potluck.FunctionCall.from_id(done).get(timeout=60) == 17


def run_python(node, program):
    done = subprocess.run(
        [sys.executable, "-c", program], env=node.env, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_deployed_functions_call_each_other_and_those_of_other_apps(lone, use_node, monkeypatch):
    monkeypatch.setattr(calls, "_connection", None)
    node = use_node(lone)
    done = run_cli(node, "deploy", "tests/e2e/nested_sample.py", "--name", "elsewhere", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    try:
        assert potluck.Function.from_name("elsewhere", "outer").remote(3) == 10
        assert potluck.Function.from_name("elsewhere", "scales").remote(3) == 9
        assert potluck.Function.from_name("elsewhere", "by_name").remote("elsewhere", "inner", 5) == 25
        with pytest.raises(NotFoundError, match="has nothing named none"):
            potluck.Function.from_name("elsewhere", "by_name").remote("elsewhere", "none", 5)
    finally:
        run_cli(node, "app", "stop", "elsewhere")


def test_calls_of_strangers_workers_are_placed_by_their_callers_node(strangers):
    assert list(sample.outer.map(range(6))) == [each * each + 1 for each in range(6)]
    assert sample.maps.remote(20) == [*(each * each for each in range(20)), 0, 1, 4]
    assert sample.catches_odd.remote() == ("odd", 7)
    assert sample.factorial.remote(3) == 6
    with pytest.raises(SerializationError, match="cannot be sent as data"):
        sample.sends_object.remote()


def test_strangers_workers_call_no_other_apps_and_nothing_that_was_not_named(strangers):
    client = strangers.client()
    try:
        named = deploy.named(sample.app._run, sample.app, (), lambda function: True)
        inner = next(each for each in named if each.name == "inner")
        client.ask(lambda number: apps.DeployApp(number, "private", (inner,)), apps.AppFacts)
        with pytest.raises(RefusedError, match="may not call functions of private"):
            sample.by_name.remote("private", "inner", 3)
        client.ask(lambda number: apps.StopApp(number, "private"), apps.AppStopped)
    finally:
        client.close()
    with pytest.raises(NotFoundError, match="nothing named nowhere"):
        sample.by_name.remote("nesting", "nowhere", 3)


def test_nested_calls_are_in_receipts_as_any(strangers):
    before = len(strangers.journal()[1])
    sample.outer.remote(2)
    wait_until(lambda: len(strangers.journal()[1]) >= before + 2, "receipts for both functions")
