"""Programs for Modal, each with `import modal` and nothing of Potluck's, run by `potluck run --as modal`."""

from pathlib import Path

import pytest
from tests.e2e.mesh import Mesh, run_cli

import potluck.modal as modal
from potluck import found

PROGRAMS = Path(__file__).parent / "modal_programs"


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    mesh = Mesh(tmp_path_factory.mktemp("mesh"))
    try:
        yield mesh.node("ann", "--cpus", "2", "--memory-mib", "2048")
    finally:
        mesh.stop()


@pytest.fixture
def run(node, tmp_path):
    """Run a copy, so that nothing else can be imported from beside it."""

    def run(name, *arguments):
        program = tmp_path / f"{name}.py"
        program.write_text((PROGRAMS / program.name).read_text())
        assert "potluck" not in program.read_text()
        done = run_cli(node, "run", "--as", "modal", program.name, *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def test_hello(run):
    said = run("hello")
    assert {"here: 9", "there: 16", f"many: {sum(n * n for n in range(20))}"} <= set(said)
    assert any(line.endswith("│ odd 19") for line in said)


def test_arguments(run):
    assert run("arguments", "--name", "you", "--times", "3", "--loud") == [
        "said: HELLO YOU !!!",
        "powers: [8, 9]",
        "with kwargs: ['hello a !!', 'hello b !!']",
        "as they come: [1, 4]",
    ]


def test_generators(run):
    assert run("generators") == [
        "down: [5, 4, 3, 2, 1]",
        "letters: abc",
        "steps: [0, 3, 6, 9] 9",
        f"many: {sum(range(1001))}",
        "left early",
        "got 0",
        "got 1",
        "raised: broken",
    ]


def test_classes(run):
    assert [line for line in run("classes") if "│" not in line] == [
        "one: 23",
        "many: [5, 7, 9]",
        "same worker: True",
        "scaled: 53",
        "elsewhere: 24",
        "here: 23",
    ]


def test_batches_and_many_at_once(run):
    assert run("sharing") == [
        f"products: {[n * n for n in range(8)]}",
        "batched: True",
        "doubled: [2, 4, 6]",
        "naps: 20.0",
        "together: True",
        f"met: {list(range(10))}",
    ]


def test_retries_and_exceptions(run):
    assert run("retrying") == [
        "attempts: 3",
        "caught: 2",
        "kept: ['int', 'Unlucky', 'int']",
        "timed out",
    ]


def test_spawned_calls(run):
    assert run("spawning") == ["gathered: [3, 7]", "again: 3", "many: [11, 22, 33] 3", "raised"]


def test_volumes(run):
    assert run("storing") == [
        "files: 1 2",
        "read: second",
        "listed: ['deep/one.txt', 'deep/two.txt']",
        "here: first",
        "then: ['deep/three.txt', 'deep/two.txt', 'three.txt']",
    ]


def test_an_image_with_packages(run):
    assert run("packages") == ["index → ['firsts', 'seconds']", "first → ['indices']", "second → []"]


def test_a_program_is_deployed_and_called_by_name(node, tmp_path, use_node, monkeypatch):
    monkeypatch.setattr(found, "_link", None)
    use_node(node)
    (tmp_path / "classes.py").write_text((PROGRAMS / "classes.py").read_text())
    done = run_cli(node, "deploy", "--as", "modal", "classes.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert modal.Cls.from_name("example-classes", "Model")(name="abc").predict.remote(10) == 23
    found.link().close()
    assert run_cli(node, "app", "stop", "example-classes").returncode == 0


def test_without_the_option_the_way_is_shown(node, tmp_path):
    """Modal itself is installed where this runs."""
    (tmp_path / "hello.py").write_text((PROGRAMS / "hello.py").read_text())
    for command in ("run", "deploy"):
        done = run_cli(node, command, "hello.py", cwd=tmp_path)
        assert done.returncode == 1
        assert "Add --as modal" in done.stderr


def test_a_name_that_potluck_lacks_fails_at_its_line(node, tmp_path):
    (tmp_path / "proxies.py").write_text("import modal\n\nproxy = modal.Proxy.from_name('data')\n")
    done = run_cli(node, "run", "--as", "modal", "proxies.py", cwd=tmp_path)
    assert done.returncode == 1
    assert "Potluck has no Proxy" in done.stderr
    assert "traffic leaves from the machine" in done.stderr
