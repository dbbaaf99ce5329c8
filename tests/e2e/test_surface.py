"""What surrounds a call: secrets, handles inside arguments, other settings, finding by name, numbers of workers."""

import asyncio
from pathlib import Path

import pytest
from tests.e2e import surface_sample as sample
from tests.e2e.mesh import Mesh, run_cli, wait_until

import potluck
from potluck import found
from potluck.errors import InvalidError, NoPeerError, NotFoundError

ROOT = Path(__file__).resolve().parent.parent.parent
SECRET = "a value that nobody may see"


@pytest.fixture(scope="module")
def ann(tmp_path_factory):
    mesh = Mesh(tmp_path_factory.mktemp("mesh"))
    try:
        yield mesh.node("ann", "--cpus", "2", "--memory-mib", "2048")
    finally:
        mesh.stop()


@pytest.fixture
def node(ann, use_node, monkeypatch):
    monkeypatch.setenv("SURFACE_TOKEN", SECRET)
    monkeypatch.setattr(found, "_link", None)
    yield use_node(ann)
    if found._link:
        found._link.close()


@pytest.fixture
def running(node):
    with sample.app.run(show_progress=False):
        yield node


def test_secrets_reach_the_function_and_no_log(running):
    assert sample.reveal.remote() == (SECRET, "shown")
    assert SECRET not in running.log.read_text()
    assert SECRET not in run_cli(running, "status", "--json").stdout


def test_other_secrets_get_other_workers(running, monkeypatch):
    other = sample.reveal.with_options(secrets=[potluck.Secret.from_dict({"SURFACE_TOKEN": "other"})])
    assert other.remote() == ("other", "shown")
    assert sample.reveal.remote() == (SECRET, "shown")
    monkeypatch.setenv("SURFACE_TOKEN", "changed")
    app = potluck.App("again")
    app.include(sample.app)
    try:
        with app.run(show_progress=False):
            assert sample.reveal.remote() == ("changed", "shown")
    finally:
        sample.app.registered_functions.clear()
        sample.app.registered_classes.clear()
        sample.app.include(app)


def test_a_secret_that_is_missing_is_named(running, monkeypatch):
    monkeypatch.delenv("SURFACE_TOKEN")
    with pytest.raises(InvalidError, match="SURFACE_TOKEN"):
        sample.reveal.with_options(timeout=100).remote()


def test_functions_and_objects_inside_arguments_work_there(running):
    assert sample.apply.remote(sample.add, 2, 3) == 5
    assert sample.apply.remote(sample.Adder(base=10, times=2).add, 3) == 16
    large = sample.Adder.with_options(cpu=2)(base=1)
    assert sample.apply.remote(large.add, 1) == 2
    assert sample.read.remote(potluck.Secret.from_local_environ(["SURFACE_TOKEN"])) == {"SURFACE_TOKEN": SECRET}


def test_handles_in_a_closure_work_there(running):
    adder, add = sample.Adder(base=5), sample.add
    app = potluck.App("closures")

    @app.function()
    def both(x):
        return adder.add.local(x) + add.local(x)

    with app.run(show_progress=False):
        assert both.remote(1) == 8


def test_functions_and_calls_that_are_handed_over_are_used_there(running):
    assert potluck.is_local()
    assert sample.where.remote() is False
    assert sample.call_back.remote(sample.add) == 2
    with pytest.raises(InvalidError, match="other settings"):
        sample.call_back.remote(sample.add.with_options(timeout=100))
    assert sample.wait_for.remote(sample.add.spawn(1)) == 2


def test_generators_from_async_code_and_left_early(running):
    async def main():
        async for item in sample.count.remote_gen.aio(10**9):
            if item == 100:
                break
        return [item async for item in sample.Adder(base=7).steps.remote_gen.aio(3)]

    assert asyncio.run(main()) == [7, 8, 9]
    # The worker of the endless one is free again.
    assert list(sample.count.remote_gen(3)) == [0, 1, 2]


def test_what_no_machine_is_like_is_said(running):
    for settings in ({"region": "nowhere"}, {"labels": {"planet": "mars"}}):
        with pytest.raises(NoPeerError):
            sample.add.with_options(**settings).remote(1)


def test_numbers_of_workers_are_told_and_changed(running):
    assert sample.add.get_current_stats() == (0, 0)
    call = sample.sleep.spawn_map([60, 60, 60])
    wait_until(lambda: sample.sleep.get_current_stats() == (1, 2), "two running, and one waiting")
    call.cancel()
    wait_until(lambda: sample.sleep.get_current_stats() == (0, 0), "the end of all")
    sample.add.update_autoscaler(max_containers=1, scaledown_window=2)
    assert list(sample.add.map(range(5))) == [1, 2, 3, 4, 5]
    with pytest.raises(InvalidError, match="min_containers"):
        sample.add.update_autoscaler(min_containers=-1)


@pytest.fixture
def deployed(node):
    sample.app.deploy(show_progress=False)
    yield node
    run_cli(node, "app", "stop", "surface")


def test_functions_are_found_by_name(deployed):
    add = potluck.Function.from_name("surface", "add")
    assert add.remote(1, b=5) == 6
    assert list(add.map(range(3))) == [1, 2, 3]
    assert add.spawn(4).get(timeout=60) == 5
    assert add.with_options(memory=128).remote(1) == 2
    assert list(potluck.Function.from_name("surface", "count").remote_gen(3)) == [0, 1, 2]
    assert potluck.Function.from_name("surface", "reveal").remote() == (SECRET, "shown")
    assert asyncio.run(add.remote.aio(1)) == 2
    with pytest.raises(InvalidError, match="is no generator"):
        add.remote_gen(1)
    with pytest.raises(InvalidError, match="not here"):
        add.local(1)


def test_classes_are_found_by_name(deployed):
    adder_class = potluck.Cls.from_name("surface", "Adder")
    adder = adder_class(base=3)
    assert adder.add.remote(1) == 4
    assert list(adder.add.map([1, 2])) == [4, 5]
    assert list(adder.steps.remote_gen(2)) == [3, 4]
    assert adder_class.with_options(memory=128)(base=1, times=3).add.remote(1) == 4
    for wrong in ({}, {"base": "3"}, {"base": 1, "size": 2}):
        with pytest.raises(InvalidError):
            adder_class(**wrong)
    with pytest.raises(AttributeError, match="subtract"):
        adder.subtract  # noqa: B018


def test_what_is_not_there_is_said_when_it_is_used(deployed):
    with pytest.raises(NotFoundError):
        potluck.Function.from_name("nowhere", "f").remote()
    with pytest.raises(NotFoundError, match="nothing named g"):
        potluck.Function.from_name("surface", "g").hydrate()
    with pytest.raises(InvalidError, match="is a class"):
        potluck.Function.from_name("surface", "Adder").remote(1)
    with pytest.raises(InvalidError, match="is a function"):
        potluck.Cls.from_name("surface", "add")()


def test_methods_and_generators_run_from_the_command_line(node):
    def said(*words):
        done = run_cli(node, "run", "-q", *words, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    file = "tests/e2e/surface_sample.py"
    assert said(f"{file}::Adder.add", "--base", "3", "--x", "4") == ["7"]
    assert said(f"{file}::Adder.steps", "--base", "3", "--to", "2") == ["3", "4"]
    assert said(f"{file}::count", "--to", "3") == ["0", "1", "2"]


def test_workers_are_kept_while_an_app_runs(node):
    app = potluck.App("kept")
    function = app.function(min_containers=1, name="kept")(sample.add.get_raw_f())
    with app.run(show_progress=False):
        assert function.get_current_stats().num_total_runners >= 1
        assert function.remote(1) == 2
