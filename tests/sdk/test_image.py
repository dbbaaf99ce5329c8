"""How images are described; that they are built as described is tested with the builder."""

import os
import platform
import subprocess
import sys

import cloudpickle
import pytest

from potluck import Image, Secret
from potluck.errors import InvalidError, PythonVersionError
from potluck_images import definition
from potluck_images.definition import AddFiles, AptInstall, DebianSlim, PipInstall, Registry, Run, Source

MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
BASE = Image.debian_slim()


def steps(image, files=()):
    return image._definition(files).steps


def last(image):
    return steps(image)[-1]


def test_a_long_chain():
    image = (
        Image.debian_slim(python_version=MINOR)
        .apt_install("git", ["ffmpeg"])
        .pip_install("numpy", extra_options="--no-deps --index-strategy first-index", pre=True)
        .env({"A": "b", "C": None})
        .workdir("/work")
        .shell(["/bin/bash", "-c"])
        .run_commands("echo a", ["echo b", "echo c"], env={"X": "y"})
        .entrypoint([])
        .cmd(["python3"])
    )
    assert steps(image) == (
        DebianSlim(sys.executable, platform.python_version()),
        AptInstall(("ffmpeg", "git")),
        PipInstall(("numpy",), (("pre", ""), ("no-deps", ""), ("index-strategy", "first-index"))),
        definition.Environment((("A", "b"),)),
        definition.Workdir("/work"),
        definition.Shell(("/bin/bash", "-c")),
        Run(("echo a", "echo b", "echo c"), (("X", "y"),)),
        definition.Entrypoint(()),
        definition.Cmd(("python3",)),
    )


def test_force_build_is_kept():
    assert last(BASE.run_commands("x", force_build=True)).force
    assert last(BASE.pip_install("x", force_build=True)).force
    assert last(BASE.apt_install("x", force_build=True)).force
    assert steps(Image.debian_slim(force_build=True))[0].force
    assert steps(Image.from_registry("x", force_build=True))[0].force


def test_other_pythons_are_refused():
    for wrong in (lambda: Image.debian_slim("2.7"), lambda: Image.from_registry("x", add_python="2.7")):
        with pytest.raises(PythonVersionError, match=r"2\.7"):
            wrong()
    assert steps(Image.from_registry("alpine", add_python=MINOR))[0].add_python


@pytest.mark.parametrize(
    "describe",
    [
        lambda: Image.micromamba(),
        lambda: BASE.pip_install("x", secrets=[object()]),
        lambda: BASE.pip_install("x", gpu="any:oops"),
        lambda: Secret.from_dict({"A=": "b"}),
        lambda: Secret.from_dict({"A": 1}),
        lambda: Secret.from_local_environ("HOME"),
        lambda: Secret.from_local_environ(["POTLUCK_NO_SUCH"])._read(),
        lambda: Secret.from_name(""),
        lambda: BASE.run_commands("x", volumes={"/v": object()}),
        lambda: BASE.run_commands(3),
        lambda: BASE.run_commands(""),
        lambda: BASE.apt_install("--allow-unauthenticated"),
        lambda: BASE.pip_install("x", extra_options="oops"),
        lambda: BASE.uv_sync(frozen=False),
        lambda: BASE.workdir("here"),
        lambda: BASE.shell("/bin/sh -c"),
        lambda: BASE.shell([]),
        lambda: BASE.add_local_file("x", "here"),
        lambda: BASE.add_local_dir("x", "/a/../b"),
        lambda: BASE.env({"A=B": "c"}),
    ],
)
def test_what_cannot_work_is_refused(describe):
    with pytest.raises(InvalidError) as caught:
        describe()
    assert caught.value.what


def test_empty_secrets_are_as_good_as_none():
    assert last(BASE.run_commands("x", secrets=[])) == Run(("x",))


def test_files_come_last_unless_they_are_copied(tmp_path):
    added = BASE.add_local_file("a.txt", "/data/").env({"A": "b"})
    here = os.path.abspath("a.txt")
    assert steps(added, (("/app/m.py", "/m.py"),))[1:] == (
        definition.Environment((("A", "b"),)),
        AddFiles("/data/a.txt", here),
        Source((("/app/m.py", "/m.py"),)),
    )
    with pytest.raises(InvalidError, match="copy=True"):
        added.run_commands("x")
    with pytest.raises(InvalidError, match="copy=True"):
        added.pip_install("x")
    copied = BASE.add_local_file("a.txt", "/a", copy=True).run_commands("cat /a")
    assert steps(copied)[1:] == (AddFiles("/a", here), Run(("cat /a",)))


def test_ignore_is_patterns_or_a_function(tmp_path):
    for name in ("keep.py", "drop.log", "sub/drop.log", "sub/keep[1].py", "cache/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert last(BASE.add_local_dir(tmp_path, "/d", ignore=["*.log"])).ignore == ("*.log",)
    chosen = BASE.add_local_dir(tmp_path, "/d", ignore=lambda path: path.suffix == ".log" or path.name == "cache")
    assert sorted(last(chosen).ignore) == ["cache", "drop.log", "sub/drop.log"]
    literal = BASE.add_local_dir(tmp_path, "/d", ignore=lambda path: "[" in path.name)
    assert last(literal).ignore == ("sub/keep[[]1].py",)


def test_python_source_is_found_by_import():
    package = last(BASE.add_local_python_source("potluck"))
    assert package.path == "/app/potluck"
    assert package.ignore == ("**", "!**/*.py")
    assert last(BASE.add_local_python_source("this")).path == "/app/this.py"
    for odd in ("no_such_module_anywhere", "sys", "no.such"):
        with pytest.raises(InvalidError, match=odd):
            steps(BASE.add_local_python_source(odd))


def test_describing_reads_no_file():
    """Modules are imported again in the sandbox, where the caller's files are not."""
    image = (
        Image.from_dockerfile("/gone/Dockerfile")
        .pip_install_from_pyproject("/gone/pyproject.toml")
        .pip_install_from_requirements("/gone/requirements.txt")
        .poetry_install_from_file("/gone/pyproject.toml")
        .uv_sync("/gone")
        .add_local_dir("/gone", "/d", ignore=lambda path: True)
        .add_local_python_source("gone_module")
    )
    with pytest.raises(InvalidError, match="Dockerfile"):
        steps(image)


def test_pyproject(tmp_path):
    file = tmp_path / "pyproject.toml"
    file.write_text('[project]\ndependencies = ["b", "a>1"]\noptional-dependencies = {x = ["c"]}\n')
    assert last(BASE.pip_install_from_pyproject(str(file), ["x"])).packages == ("a>1", "b", "c")
    with pytest.raises(InvalidError, match="'y'"):
        steps(BASE.pip_install_from_pyproject(str(file), ["y"]))
    file.write_text("[tool.poetry]\n")
    with pytest.raises(InvalidError, match="project"):
        steps(BASE.pip_install_from_pyproject(str(file)))


LOCK = """
[[package]]
name = "main-one"
version = "1.0"
groups = ["main"]
files = [{file = "a.whl", hash = "sha256:aa"}, {file = "b.whl", hash = "sha256:bb"}]
markers = "python_version < '4'"

[[package]]
name = "for-tests"
version = "2.0"
groups = ["dev", "docs"]
files = []
[package.markers]
dev = "sys_platform == 'linux'"
docs = "sys_platform == 'win32'"

[[package]]
name = "for-an-extra"
version = "3.0"
optional = true
groups = ["main"]
files = []

[metadata]
lock-version = "2.1"
"""


def test_poetry(tmp_path):
    project = tmp_path / "pyproject.toml"
    project.write_text("[tool.poetry.group.docs]\noptional = true\n[tool.poetry.group.dev.dependencies]\n")
    lock = tmp_path / "poetry.lock"
    lock.write_text(LOCK)
    main = "main-one==1.0 ; python_version < '4' --hash=sha256:aa --hash=sha256:bb\n"
    dev = "for-tests==2.0 ; (sys_platform == 'linux')\n"
    both = "for-tests==2.0 ; (sys_platform == 'linux') or (sys_platform == 'win32')\n"

    def locked(**groups):
        return last(BASE.poetry_install_from_file(str(project), **groups)).locked

    assert locked() == main + dev
    assert locked(without=["dev"]) == main
    assert locked(with_=["docs"]) == main + both
    assert locked(only=["dev"]) == dev
    lock.write_text(LOCK.replace('"2.1"', '"2.0"'))
    with pytest.raises(InvalidError, match="too old"):
        locked()
    lock.write_text(LOCK.replace("files = []", 'files = []\nsource = {type = "git", url = "x"}', 1))
    with pytest.raises(InvalidError, match="git"):
        locked()


def test_uv_sync_keeps_its_choices(tmp_path):
    step = last(BASE.uv_sync(str(tmp_path), groups=["g"], extras=["e"], extra_options="--no-dev"))
    assert step.project == str(tmp_path)
    assert step.project_options == (("group", "g"), ("extra", "e"), ("no-dev", ""))


def test_pipe_and_imports(monkeypatch):
    assert BASE.pipe(lambda image, name, *, more: image.apt_install(name, more), "a", more="b") is not BASE
    monkeypatch.delenv("POTLUCK_SANDBOX", raising=False)
    with BASE.imports():
        import no_such_module_anywhere
    monkeypatch.setenv("POTLUCK_SANDBOX", "1")
    with pytest.raises(ImportError), BASE.imports():
        import no_such_module_anywhere  # noqa: F401


def test_a_function_travels_by_value(tmp_path):
    """It can be called where its module is not to be found."""
    program = """
import sys
sys.path.insert(0, sys.argv[1])
import own_module, potluck
step = potluck.Image.debian_slim().run_function(own_module.greet, args=("you",))._definition().steps[-1]
assert step.name == "greet" and step.timeout_s == 3600
sys.stdout.buffer.write(step.pickled)
"""
    code = "def helper(x):\n    return 'hello ' + x\ndef greet(name):\n    return helper(name)\n"
    (tmp_path / "own_module.py").write_text(code)
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, check=True)
    function, args, kwargs = cloudpickle.loads(done.stdout)
    assert function(*args, **kwargs) == "hello you"


def test_from_registry_takes_dockerfile_lines():
    found = steps(Image.from_registry("debian:12", setup_dockerfile_commands=["RUN apt-get update"]))
    assert found[0] == Registry("debian:12", sys.executable, platform.python_version())
    assert found[1] == Run(("apt-get update",))


def test_a_function_with_too_much_data_is_told_where_data_goes():
    with pytest.raises(InvalidError, match="1024 KiB") as caught:
        steps(BASE.run_function(len, args=(bytes(1 << 20),)))
    assert "add_local_file" in caught.value.fix
