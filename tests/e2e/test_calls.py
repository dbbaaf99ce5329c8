"""A function call through everything: SDK, node, libp2p, another node, sandbox, and back, with a receipt."""

import asyncio
import socket
import threading

import pytest
from tests.e2e import sample
from tests.e2e.mesh import run_cli, wait_until

import potluck
from potluck.errors import (
    ExecutionError,
    FunctionTimeoutError,
    InputCancellation,
    NoPeerError,
    PythonVersionError,
    ResourceExceededError,
    SerializationError,
)
from potluck_ledger.exported import compare
from potluck_ledger.journal import verify


@pytest.fixture(autouse=True)
def connected(trio_of_nodes, use_node):
    use_node(trio_of_nodes.nodes[0])


@pytest.fixture
def running():
    with sample.app.run(show_progress=False):
        yield


@pytest.mark.usefixtures("running")
class TestCalls:
    def test_remote_returns_the_result(self):
        assert sample.add.remote(2, b=3) == 5
        assert sample.add_async.remote(2, 3) == 5

    def test_a_command_line_finds_a_shell(self):
        assert sample.command_line.remote("echo there && exit 0") == "there\n"

    def test_own_classes_travel_both_ways(self):
        moved = sample.move.remote(sample.Point(1, 2))
        assert moved == sample.Point(2, 3)
        assert type(moved) is sample.Point

    def test_map_keeps_order_and_uses_both_providers(self, capsys):
        workers = set[str]()
        # On a busy machine one provider can be through before the other has its worker.
        for _ in range(3):
            assert list(sample.chat_slowly.map([f"t{n}" for n in range(20)])) == [f"t{n}" for n in range(20)]
            workers |= {line.split("-")[0] for line in capsys.readouterr().out.splitlines()}
            if len(workers) == 2:
                break
        assert workers == {"ann", "bob"}

    def test_map_unordered_and_with_kwargs(self):
        assert sorted(sample.add.map(range(10), kwargs={"b": 10}, order_outputs=False)) == list(range(10, 20))

    def test_starmap_and_for_each(self):
        assert list(sample.add.starmap([(1, 2), (3, 4)])) == [3, 7]
        assert sample.add.for_each(range(5)) is None

    def test_a_long_map_is_read_only_as_far_as_it_is_taken(self):
        taken = []

        def numbers():
            for number in range(100_000):
                taken.append(number)
                yield number

        results = sample.add.map(numbers())
        assert next(results) == 1
        results.close()
        assert len(taken) < 10_000

    def test_prints_appear_with_the_workers_name(self, capsys):
        sample.chat.remote("hello")
        shown = capsys.readouterr()
        (line,) = [line for line in shown.out.splitlines() if line.endswith("│ out hello")]
        assert line.startswith(("ann-", "bob-"))
        assert "│ err hello" in shown.err

    def test_an_exception_keeps_its_type_and_shows_the_remote_source(self):
        with pytest.raises(sample.OwnError) as caught:
            sample.fail.remote(7)
        assert caught.value.code == 7
        assert "raise OwnError(code)" in str(caught.value.__cause__)
        assert "sample.py" in str(caught.value.__cause__)

    def test_return_exceptions(self):
        (found,) = sample.fail.map([3], return_exceptions=True)
        assert isinstance(found, sample.OwnError)

    def test_a_closure_is_sent_by_value(self):
        factor = 7
        app = potluck.App("closures")

        @app.function()
        def scale(x):
            return x * factor

        with app.run(show_progress=False):
            assert scale.remote(6) == 42

    def test_large_arguments_and_results(self):
        data = bytes(range(256)) * (20 << 12)
        assert sample.echo.remote(data) == data

    def test_environment(self):
        assert sample.environment.remote("GREETING") == "hello"
        assert sample.environment.remote("POTLUCK_HOME") is None

    def test_threads_share_a_run(self):
        results = {}
        threads = [threading.Thread(target=lambda n=n: results.update({n: sample.add.remote(n)})) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == {n: n + 1 for n in range(8)}

    def test_aio(self):
        async def main():
            one = await sample.add.remote.aio(1, 2)
            both = await asyncio.gather(sample.add.remote.aio(3, 4), sample.add_async.remote.aio(5, 6))
            mapped = [each async for each in sample.add.map.aio(range(5))]
            await sample.add.for_each.aio(range(3))
            return one, both, mapped, [each async for each in sample.add.starmap.aio([(1, 1)])]

        assert asyncio.run(main()) == (3, [7, 11], [1, 2, 3, 4, 5], [2])

    def test_the_sandbox_hides_home_and_network(self, trio_of_nodes):
        home = str(trio_of_nodes.nodes[1].home)
        assert sample.look.remote(home) == ["FileNotFoundError"]
        assert sample.look.remote("/home") == ["FileNotFoundError"]
        assert sample.look.remote("/root") == ["FileNotFoundError"]
        with socket.create_server(("127.0.0.1", 0)) as listener:
            assert sample.dial.remote(listener.getsockname()[1]) == "ConnectionRefusedError"


@pytest.mark.usefixtures("running")
class TestBadInput:
    def test_unpicklable_argument_names_the_attribute(self):
        with pytest.raises(SerializationError, match="lock"):
            sample.move.remote({"lock": threading.Lock()})

    def test_unpicklable_result_names_the_attribute(self):
        with pytest.raises(SerializationError, match=r"\['model'\]"):
            sample.unpicklable.remote()

    def test_an_import_that_the_image_lacks(self):
        with pytest.raises(ModuleNotFoundError) as caught:
            sample.missing_import.remote()
        assert "a_module_that_nobody_has" in str(caught.value)

    def test_a_timeout(self):
        with pytest.raises(FunctionTimeoutError, match="1 s"):
            sample.too_slow.remote()

    def test_a_crash_of_the_worker(self):
        with pytest.raises(ExecutionError, match="died"):
            sample.crash.remote()
        assert sample.add.remote(1) == 2

    def test_out_of_memory(self):
        with pytest.raises((ResourceExceededError, MemoryError)):
            sample.eat_memory.remote()

    def test_nobody_has_the_gpu(self):
        with pytest.raises(NoPeerError) as caught:
            sample.needs_gpu.remote()
        assert "1 H100" in caught.value.what
        assert "ann has no GPU" in caught.value.why


def test_another_python_than_the_images(monkeypatch):
    with sample.app.run(show_progress=False):
        monkeypatch.setattr("sys.version_info", (3, 99, 0, "final", 0))
        with pytest.raises(PythonVersionError, match=r"this program runs 3\.99"):
            sample.add.remote(1)


def test_both_sides_sign_and_their_journals_agree(trio_of_nodes):
    with sample.app.run(show_progress=False):
        list(sample.add.map(range(20)))
    caller = trio_of_nodes.nodes[0]
    wait_until(lambda: not caller.status().calls, "closing all calls")

    def settled():
        journals = [
            (owner, verify(owner, entries)) for owner, entries in (node.journal() for node in trio_of_nodes.nodes)
        ]
        agree = all(not compare(journals[0], other) for other in journals[1:])
        return agree and all(entries for _, entries in journals) and journals

    wait_until(settled, "agreeing journals")
    for _, entries in settled():
        assert all(entry.countersigned for entry in entries)
        assert all(entry.receipt.busy_us <= entry.receipt.lease_us for entry in entries)


@pytest.mark.usefixtures("running")
def test_an_owner_ends_what_others_run_and_a_caller_one_call_of_several(trio_of_nodes):
    caller, *providers = trio_of_nodes.nodes
    kept, ended = sample.sleep.spawn(1.5), sample.sleep.spawn(600.0)
    (name,) = [each.call for each in caller.status().calls if each.call == ended.object_id]

    def running(node):
        return [each.worker for each in node.status().workers if each.state == "running"]

    wait_until(lambda: sum(len(running(node)) for node in providers) == 2, "both at work")
    assert "is cancelled" in run_cli(caller, "call", "cancel", name).stdout
    with pytest.raises(InputCancellation):
        ended.get(timeout=10)
    wait_until(lambda: sum(len(running(node)) for node in providers) == 1, "the end of one")
    (busy,) = [node for node in providers if running(node)]
    assert "runs elsewhere" in run_cli(busy, "container", "stop", running(busy)[0]).stdout
    (other,) = [node for node in providers if node is not busy]
    wait_until(lambda: running(other), "its going on elsewhere")
    assert kept.get(timeout=60) == 1.5
    assert not running(busy)
