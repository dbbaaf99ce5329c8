"""Spawned calls: they outlive the program that spawned them, and the node."""

import subprocess
import sys
import time

import pytest
from tests.e2e import spawn_sample as sample
from tests.e2e.mesh import Mesh, wait_until

import potluck
from potluck import calls
from potluck.errors import InputCancellation, InvalidError, NotFoundError, TimeoutError


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
    yield use_node(nodes)
    if calls._connection:
        calls._connection.close()


def in_another_program(node, call, what="get()"):
    """What a new Python process gets from the call."""
    program = f"import potluck; print(potluck.FunctionCall.from_id({call.object_id!r}).{what})"
    done = subprocess.run([sys.executable, "-c", program], env=node.env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_call_goes_on_when_its_program_has_left(node):
    with sample.app.run(show_progress=False):
        call = sample.slow_double.spawn(21, seconds=2)
        with pytest.raises(TimeoutError, match="no result yet"):
            call.get(timeout=0)
        assert call.num_inputs() == 1
    assert in_another_program(node, call) == "42"
    assert call.get() == 42
    assert potluck.FunctionCall.gather(call, call) == [42, 42]


def test_many_inputs_are_one_call(node):
    with sample.app.run(show_progress=False):
        call = sample.slow_double.spawn_map(range(3000))
    assert call.num_inputs() == 3000
    assert list(call.iter(start=2990)) == [2 * number for number in range(2990, 3000)]
    assert list(call.iter()) == [2 * number for number in range(3000)]


def test_an_exception_is_kept_with_its_traceback(node):
    with sample.app.run(show_progress=False):
        call = sample.fail.spawn("on purpose")
    with pytest.raises(ValueError, match="on purpose") as caught:
        call.get()
    assert "raise ValueError" in str(caught.value.__cause__)


async def test_all_of_it_in_asyncio(node):
    import asyncio

    async def spawn_and_get():
        with sample.app.run(show_progress=False):
            call = await sample.slow_double.spawn.aio(3)
        many = [result async for result in call.iter.aio()]
        return await call.get.aio(), many, await call.num_inputs.aio()

    import trio

    assert await trio.to_thread.run_sync(asyncio.run, spawn_and_get()) == (6, [6], 1)


def test_a_cancelled_call_ends_and_says_so(node):
    with sample.app.run(show_progress=False):
        call = sample.slow_double.spawn_map([1, 2], kwargs={"seconds": 600})
        wait_until(lambda: any(worker.state == "running" for worker in node.status().workers), "the call running")
    begun = time.monotonic()
    call.cancel()
    with pytest.raises(InputCancellation, match="cancelled"):
        call.get()
    assert time.monotonic() - begun < 30
    wait_until(lambda: not any(w.state == "running" for w in node.status().workers), "the work's end")


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_call_survives_a_restart_of_the_node(node, how):
    with sample.app.run(show_progress=False):
        call = sample.slow_double.spawn_map([1, 2, 3, 4], kwargs={"seconds": 1})
    assert call.get(index=0) == 2
    getattr(node, how)()
    node.start()
    assert list(call.iter()) == [2, 4, 6, 8]


def test_a_limit_holds_over_a_restart_of_the_node(node):
    with sample.app.run(show_progress=False):
        limited = sample.slow_double.with_options(max_gpu_seconds=3)
        call = limited.spawn_map(range(8), kwargs={"seconds": 1})
    # Two run at once, where there is room.
    assert [call.get(index=index) for index in range(2)] == [0, 2]
    node.kill()
    node.start()
    results = [outcome(call, index) for index in range(8)]
    done = [each for each in results if isinstance(each, int)]
    # The two before, what ran when it died and is not counted, and one more.
    assert len(done) in range(2, 5)
    assert {type(each).__name__ for each in results if not isinstance(each, int)} == {"LimitExceededError"}


def outcome(call, index):
    try:
        return call.get(index=index, timeout=60)
    except potluck.errors.Error as error:
        return error


def test_what_is_not_there_is_said(node):
    with pytest.raises(InvalidError, match="begin with fc-"):
        potluck.FunctionCall.from_id("nonsense")
    with pytest.raises(NotFoundError, match="no call fc-unknown"):
        potluck.FunctionCall.from_id("fc-unknown").get()
    with sample.app.run(show_progress=False):
        call = sample.slow_double.spawn(1)
    with pytest.raises(NotFoundError, match="no input 1"):
        call.get(index=1)
    with pytest.raises(InvalidError, match="no time to wait"):
        call.get(timeout=-1)
