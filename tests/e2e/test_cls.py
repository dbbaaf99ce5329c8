"""Classes through everything: real nodes, sandboxes, zygotes and workers."""

import asyncio
from pathlib import Path

import pytest
from tests.e2e import cls_sample as sample
from tests.e2e.cls_sample import Model
from tests.e2e.mesh import run_cli

import potluck
from potluck.errors import ExecutionError, FunctionTimeoutError


@pytest.fixture(autouse=True)
def running(trio_of_nodes, use_node):
    use_node(trio_of_nodes.nodes[0])
    with sample.app.run(show_progress=False):
        yield


def test_an_object_is_loaded_once_and_entered_once_in_each_worker():
    seen = list(Model().where.map(range(20)))
    for name, pid, lines in seen:
        assert name == "small"
        assert lines == ["load small", f"connect {pid}"]
    # Two machines with one worker each; pids are those inside of a sandbox.
    assert len({pid for _, pid, _ in seen}) <= 2


def test_methods_share_a_worker():
    workers = set()
    for number in range(4):
        workers.add(tuple(Model(name="shared").where.remote(number)[2]))
        assert Model(name="shared").double.remote(number) == 2 * number
    assert len(workers) <= 2


def test_parameter_sets_do_not_share_workers():
    for name in ("small", "large", "small", "large"):
        found, pid, lines = Model(name=name).where.remote(0)
        assert (found, lines) == (name, [f"load {name}", f"connect {pid}"])


def test_every_way_to_call():
    model = Model()
    assert model.both.remote(3, times=3) == 18
    assert list(model.both.map([1, 2])) == [4, 8]
    assert list(model.both.starmap([(1,), (2,)], kwargs={"times": 1})) == [2, 4]
    assert model.double.for_each([1, 2]) is None

    async def main():
        return await model.both.remote.aio(3), [each async for each in model.double.map.aio([1, 2])]

    assert asyncio.run(main()) == (12, [2, 4])


def test_a_class_that_cannot_be_imported_is_sent_by_value():
    factor = 7
    app = potluck.App("closures")

    @app.cls()
    class Scale:
        by: int = potluck.parameter(default=1)

        @potluck.enter()
        def prepare(self):
            self.factor = factor * self.by

        @potluck.method()
        def scale(self, x):
            return x * self.factor

    with app.run(show_progress=False):
        assert Scale(by=2).scale.remote(3) == 42


def test_a_failure_before_the_fork_is_told_once_with_its_traceback():
    with pytest.raises(ExecutionError, match="NoWeights") as caught:
        sample.NoWeights().predict.remote()
    assert 'raise FileNotFoundError("weights.bin")' in caught.value.why


def test_a_failure_in_a_worker_is_the_inputs_own_and_retried_as_such(capsys):
    with pytest.raises(sample.DatabaseError) as caught:
        sample.NoDatabase().ask.remote()
    assert capsys.readouterr().out.count("│ connecting") == 2
    assert "in connect" in str(caught.value.__cause__)


def test_entering_forever_ends_with_the_timeout():
    with pytest.raises(FunctionTimeoutError, match="1 s"):
        sample.Sleeper().wake.remote()


def test_the_example(trio_of_nodes):
    root = Path(__file__).resolve().parent.parent.parent
    done = run_cli(trio_of_nodes.nodes[0], "run", "examples/classes.py", "--asked", "20", cwd=root)
    assert done.returncode == 0, done.stderr
    assert "primes up to a million: 78498" in done.stdout
    assert "20 more" in done.stdout
