"""Dicts and queues, from programs and from workers on other peers."""

import asyncio
import gc
import json
import queue
import subprocess
import sys
import threading
from pathlib import Path

import cloudpickle
import pytest
import trio
from tests.e2e import state_sample as sample
from tests.e2e.mesh import Mesh, run_cli, wait_until

import potluck
from potluck import Dict, Queue, asking, calls
from potluck.errors import AlreadyExistsError, NotFoundError, RefusedError, SerializationError


@pytest.fixture
def caller(trio_of_nodes, use_node, monkeypatch):
    """A node whose functions run on peers that it does not trust."""
    monkeypatch.setattr(calls, "_connection", None)
    node = use_node(trio_of_nodes.nodes[0])
    forget(sample.counts, sample.jobs)
    yield node
    for kind in (Dict, Queue):
        for each in kind.objects.list():
            kind.objects.delete(each.name)
    if calls._connection:
        calls._connection.close()


def forget(*handles):
    """What a handle knows of another test's node."""
    for handle in handles:
        handle._object_id, handle._facts = "", None


@pytest.fixture
def run(caller):
    with sample.app.run(show_progress=False):
        yield caller


def test_a_dict_is_used_as_modals(caller):
    d = Dict.from_name("d", create_if_missing=True)
    assert d.put("a", 1)
    assert not d.put("a", 2, skip_if_exists=True)
    d[("b", 2)] = {"x": [1, 2.5, None]}
    d.update({3: "three"}, four=4)
    assert (d["a"], d.get("none"), d.get("none", 7)) == (1, None, 7)
    assert ("b", 2) in d
    assert not d.contains("c")
    assert dict(d.items()) == {"a": 1, ("b", 2): {"x": [1, 2.5, None]}, 3: "three", "four": 4}
    assert set(d.keys()) == {"a", ("b", 2), 3, "four"}
    assert len(list(d.values())) == d.len() == 4
    assert d.pop("a") == 1
    with pytest.raises(KeyError):
        d.pop("a")
    assert d.pop("a", "default") == "default"
    with pytest.raises(KeyError):
        d["a"]
    del d["four"]
    d.clear()
    assert d.len() == 0
    with pytest.raises(SerializationError):
        d[frozenset("ab")] = 1
    with pytest.raises(TypeError):
        d[[1]] = 1


def test_a_queue_is_used_as_modals(caller):
    q = Queue.from_name("q", create_if_missing=True)
    q.put(1)
    q.put_many([2, "three"])
    q.put("elsewhere", partition="p", partition_ttl=60)
    assert list(q.iterate()) == [1, 2, "three"]
    assert (q.len(), q.len(partition="p"), q.len(total=True)) == (3, 1, 4)
    assert q.get() == 1
    assert q.get_many(10) == [2, "three"]
    assert q.get(block=False) is None
    assert q.get_many(3, block=False) == []
    with pytest.raises(queue.Empty):
        q.get(timeout=0.01)
    q.put_many([0] * 5000)
    with pytest.raises(queue.Full):
        q.put(1, block=False)
    q.clear()
    assert q.len(total=True) == 1
    q.clear(all=True)
    assert q.len(total=True) == 0


def test_names_ids_and_lists(caller):
    Dict.objects.create("first")
    with pytest.raises(AlreadyExistsError):
        Dict.objects.create("first")
    Dict.objects.create("first", allow_existing=True)
    Dict.objects.create("second")
    assert [each.name for each in Dict.objects.list()] == ["second", "first"]
    assert [each.name for each in Dict.objects.list(max_objects=1)] == ["second"]
    first = Dict.from_name("first")
    first["a"] = 1
    assert Dict.from_id(first.object_id)["a"] == 1
    assert first.info().name == "first"
    with pytest.raises(NotFoundError):
        Queue.from_name("first").len()
    Dict.objects.delete("first")
    with pytest.raises(NotFoundError):
        Dict.objects.delete("first")
    Dict.objects.delete("first", allow_missing=True)
    with pytest.raises(NotFoundError):
        first.get("a")


def test_ephemeral_ones_end_with_the_block_or_the_program(caller):
    with Queue.ephemeral() as q:
        q.put(1)
        same = Queue.from_id(q.object_id)
        assert same.get() == 1
    with pytest.raises(NotFoundError):
        same.len()
    program = (
        "import potluck, os\nd = potluck.Dict.ephemeral().__enter__()\nprint(d.object_id, flush=True)\nos._exit(1)"
    )
    done = subprocess.run([sys.executable, "-c", program], env=caller.env, capture_output=True, text=True, check=False)
    left = Dict.from_id(done.stdout.strip())
    wait_until(lambda: is_gone(left), "the end of what the program made")


def is_gone(handle):
    try:
        handle.len()
    except NotFoundError:
        return True
    return False


async def test_in_asyncio(caller):
    async def use():
        async with Dict.ephemeral() as d, Queue.ephemeral() as q:
            await d.put.aio("a", 1)
            # More than there are threads to wait in.
            getting = [asyncio.create_task(q.get.aio()) for _ in range(50)]
            left = asyncio.create_task(q.get.aio())
            await asyncio.sleep(0)
            left.cancel()
            with pytest.raises(asyncio.CancelledError):
                await left
            await q.put_many.aio(list(range(51)))
            assert sorted(await asyncio.gather(*getting)) == list(range(50))
            assert [item async for item in q.iterate.aio()] == [50]
            return [pair async for pair in d.items.aio()]

    assert await trio.to_thread.run_sync(asyncio.run, use()) == [("a", 1)]
    asking._clients.clear()
    gc.collect()


def test_a_blocking_get_is_interrupted_and_takes_nothing(caller):
    q = Queue.from_name("q", create_if_missing=True)
    program = "import potluck\npotluck.Queue.from_name('q').get()"
    waiting = subprocess.Popen([sys.executable, "-c", program], env=caller.env, stderr=subprocess.DEVNULL)
    got = []
    taker = threading.Thread(target=lambda: got.append(q.get()))
    taker.start()
    waiting.kill()
    waiting.wait()
    q.put("kept")
    taker.join(30)
    assert got == ["kept"]


def test_workers_use_the_programs_handles(run):
    assert sample.count.remote("a") == 1
    assert sample.count.remote("a") == 2
    assert sample.counts["a"] == 2
    assert sample.jobs.get_many(5, partition="done") == [{"word": "a", "tags": ("a", 1)}] * 2
    assert sample.Counter().get.remote()


def test_handles_are_arguments_and_workers_wait_for_each_other(run):
    with Queue.ephemeral() as inbox, Queue.ephemeral() as outbox:
        running = [sample.work.spawn(inbox, outbox) for _ in range(2)]
        inbox.put_many(list(range(20)))
        assert sorted(outbox.get() for _ in range(20)) == [2 * number for number in range(20)]
        inbox.put_many([None, None])
        assert sum(call.get() for call in running) == 20


def test_handles_in_closures(caller):
    app = potluck.App("closing")
    with Dict.ephemeral() as shelf:

        def put(value: int) -> None:
            shelf["in"] = value

        function = app.function(serialized=True, timeout=60)(put)
        with app.run(show_progress=False):
            function.remote(5)
        assert shelf["in"] == 5
        assert cloudpickle.loads(cloudpickle.dumps(shelf))["in"] == 5


def test_strangers_open_only_what_the_app_was_given(run):
    Dict.objects.create("private")
    with pytest.raises(RefusedError, match="may not use the dict private"):
        sample.open_by_name.remote("private", True)
    assert Dict.from_name("private").len() == 0
    assert sample.open_by_name.remote("own", True) == "a worker"
    assert Dict.from_name("own")["by"] == "a worker"
    with pytest.raises(NotFoundError):
        sample.open_by_name.remote("none", False)


def test_strangers_put_data_alone(run):
    with Dict.ephemeral() as shelf:
        with pytest.raises(SerializationError, match="cannot be sent as data"):
            sample.put_object.remote(shelf)
        assert shelf.len() == 0


def test_many_at_once_and_large_ones_from_a_worker(run):
    with Dict.ephemeral() as shelf:
        assert sample.many.remote(shelf, 200) == 200
        assert sample.large.remote(shelf) == 3 << 20
        assert shelf["large"] == bytes(3 << 20)
        assert sample.in_a_fork.remote(shelf) == 7


@pytest.mark.parametrize("offers", [True, False])
def test_a_put_that_was_acknowledged_survives_a_killed_node(tmp_path, use_node, monkeypatch, offers):
    monkeypatch.setattr(calls, "_connection", None)
    mesh = Mesh(tmp_path)
    try:
        node = use_node(mesh.node("ann", *([] if offers else ["--no-offer"])))
        d, q = Dict.from_name("d", create_if_missing=True), Queue.from_name("q", create_if_missing=True)
        acknowledged = []

        def put():
            number = 0
            while True:
                number += 1
                try:
                    d[number] = number
                    q.put(number)
                except potluck.Error:
                    return
                acknowledged.append(number)

        putting = threading.Thread(target=put)
        putting.start()
        wait_until(lambda: len(acknowledged) > 20, "some puts")
        node.kill()
        putting.join()
        node.start()
        assert set(acknowledged) <= set(d.keys())
        assert q.get_many(len(acknowledged)) == acknowledged
    finally:
        if calls._connection:
            calls._connection.close()
        mesh.stop()


def test_the_example_runs(caller):
    root = Path(__file__).resolve().parent.parent.parent
    done = run_cli(caller, "run", "examples/word_count.py", cwd=root)
    assert done.returncode == 0, done.stderr
    assert "lines counted: 30" in done.stdout
    assert "most frequent: to 40" in done.stdout


def cli(node, *arguments, stdin=""):
    done = run_cli(node, *arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_dicts_and_queues_from_the_command_line(caller):
    cli(caller, "dict", "create", "d")
    cli(caller, "dict", "create", "d")
    d = Dict.from_name("d")
    d.update({"word": "up\x1b[2J", 2: {"x": [1]}, "odd": {1, 2}})
    assert cli(caller, "dict", "get", "d", "word") == "up[2J\n"
    assert run_cli(caller, "dict", "get", "d", "none").returncode == 1
    entries = {each["key"]: each["value"] for each in json.loads(cli(caller, "dict", "items", "d", "--json"))}
    assert entries == {"word": "up\x1b[2J", 2: {"x": [1]}, "odd": "{1, 2}"}
    assert "..." in cli(caller, "dict", "items", "d", "2")
    assert "'odd'" in cli(caller, "dict", "items", "d", "--repr")
    assert [(each["name"], each["len"]) for each in json.loads(cli(caller, "dict", "list", "--json"))] == [("d", 3)]
    assert "write --yes" in run_cli(caller, "dict", "clear", "d").stderr
    cli(caller, "dict", "clear", "d", "--yes")
    assert d.len() == 0
    cli(caller, "dict", "delete", "d", "-y")
    assert cli(caller, "dict", "delete", "d", "-y", "--allow-missing") == ""
    assert "no dict named d" in run_cli(caller, "dict", "delete", "d", "-y").stderr

    q = Queue.from_name("q", create_if_missing=True)
    q.put_many(["one", ("two", 2)])
    q.put("three", partition="p")
    assert cli(caller, "queue", "peek", "q", "5") == "one\n('two', 2)\n"
    assert json.loads(cli(caller, "queue", "peek", "q", "-p", "p", "--json")) == ["three"]
    assert [cli(caller, "queue", "len", "q", *flags) for flags in ((), ("-p", "p"), ("--total",))] == [
        "2\n",
        "1\n",
        "3\n",
    ]
    assert "q" in cli(caller, "queue", "list")
    cli(caller, "queue", "clear", "q", "--all", "-y")
    assert q.len(total=True) == 0
    cli(caller, "queue", "delete", "q", "-y")
    assert cli(caller, "queue", "list").startswith("None.")
