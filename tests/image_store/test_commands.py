"""Steps that run commands, in real sandboxes. The image's Python is its shell, so that nothing is downloaded."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import time

import cloudpickle
import msgspec
import pytest
from tests.image_store.test_build import run_in, wheel

from potluck_images import debian
from potluck_images.build import build
from potluck_images.definition import (
    AddFiles,
    Environment,
    ImageDefinition,
    LocalPython,
    PipInstall,
    Run,
    RunFunction,
    Shell,
    Workdir,
)
from potluck_images.disk import DiskStore
from potluck_images.errors import ImageBuildError
from potluck_images.image import get_config, get_manifest
from potluck_images.materialise import materialise
from potluck_images.pip_install import find_uv
from potluck_node import builder_limits
from potluck_node.builder import BwrapWorkshop

BASE = (LocalPython(sys.executable, platform.python_version()), Shell(("/opt/python/bin/python3", "-c")))


class Place:
    """One store, cache and workshop."""

    def __init__(self, folder):
        self.store, self.cache, self.home = DiskStore(folder / "store"), folder / "cache", folder / "home"
        self.workshop = BwrapWorkshop()

    def build(self, *steps):
        self.said = []
        return build(
            ImageDefinition((*BASE, *steps)),
            self.store,
            self.cache,
            lambda *words: self.said.append(words),
            self.workshop,
        )

    def ran(self):
        """The commands that ran, as the user sees them."""
        return [text for stage, text in self.said if stage == "run" and text.startswith("ran ")]

    def tree(self, image):
        return materialise(self.store, image, self.home)

    def run(self, image, *command):
        return run_in(self.store, image, self.home, *command)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    made = Place(tmp_path_factory.mktemp("commands"))
    yield made
    made.store.close()


def test_a_command_changes_the_image_and_nothing_else(place):
    plain = place.build()
    with place.tree(plain) as root:
        before = (root / "etc/hosts").read_bytes()
    code = """
import os, socket
assert os.getuid() == 0
with open('/etc/hosts', 'a') as file: file.write('more')
os.unlink('/etc/group')
os.makedirs('/data/closed', 0o700)
open('/data/closed/file', 'w').write('hi')
os.chown('/data/closed/file', 5, 6)
os.mkfifo('/data/pipe')
open('/tmp/left', 'w').write('x'); open('/run/left', 'w').write('x')
"""
    image = place.build(Run((code,)))
    with place.tree(image) as root:
        assert (root / "etc/hosts").read_bytes() == before + b"more"
        assert not (root / "etc/group").exists()
        assert (root / "data/closed/file").read_text() == "hi"
        assert not (root / "data/pipe").exists()
        assert not list((root / "tmp").iterdir())
        assert not list((root / "run").iterdir())
    assert any("pipe" in text for _, text in place.said)
    with place.tree(plain) as root:
        assert (root / "etc/hosts").read_bytes() == before
        assert (root / "etc/group").exists()
    assert list((place.cache / "tmp").iterdir()) == []
    assert not list(place.cache.glob("trees/*/roots/*"))


def test_a_step_never_writes_into_the_tree_below_it(place):
    """Its files are hard links that other trees share; held here, the tree outlives the build."""
    plain = place.build()
    with materialise(place.store, plain, place.cache / "trees") as root:
        hosts = root / "etc/hosts"
        before = (hosts.read_bytes(), hosts.stat().st_ino)
        place.build(
            Run(("f = open('/etc/hosts', 'r+'); f.write('overwritten'); f.close()",)),
            Run(("import os; os.chmod('/etc/hosts', 0o777); os.truncate('/etc/hosts', 0)",)),
        )
        assert (hosts.read_bytes(), hosts.stat().st_ino) == before
        assert hosts.stat().st_mode & 0o777 == 0o444


def test_a_changed_step_runs_again_with_all_after_it(place):
    steps = [Run((f"print('ran {name}'); open('/{name}', 'w')",)) for name in "abc"]
    first = place.build(*steps)
    assert place.ran() == ["ran a", "ran b", "ran c"]
    assert place.build(*steps) == first
    assert place.ran() == []
    changed = Run(("print('ran B'); open('/b', 'w').write('changed')",))
    other = place.build(steps[0], changed, steps[2])
    assert place.ran() == ["ran B", "ran c"]
    assert other != first
    place.build(steps[0], Environment((("A", "1"),)), steps[1])
    assert place.ran() == ["ran b"]
    forced = Run(steps[1].commands, force=True)
    assert place.build(steps[0], forced, steps[2]) == first
    assert place.ran() == ["ran b", "ran c"]


def test_same_definition_same_image_in_another_place(place, tmp_path):
    package = wheel(tmp_path, "potluckone", "1.0", "value = 1\ndef main(): print('tool', value)\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/keep.txt").write_text("keep")
    (tmp_path / "data/drop.log").write_text("drop")
    steps = (
        Run(("import time; open('/made', 'w').write('x' * 100_000); open('/mod.py', 'w').write('x = 1')",)),
        PipInstall((str(package),)),
        AddFiles("/data", str(tmp_path / "data"), ("*.log",)),
        Workdir("/data"),
    )
    image = place.build(*steps)
    other = Place(tmp_path / "other")
    assert other.build(*steps) == image
    other.store.close()
    code = (
        "import potluckone, os; print(potluckone.value, potluckone.__cached__, os.listdir(), os.path.exists('/made'))"
    )
    tag = sys.implementation.cache_tag
    cached = f"/opt/site/potluckone/__pycache__/__init__.{tag}.pyc"
    assert place.run(image, "python3", "-c", code) == f"1 {cached} ['keep.txt'] True"
    assert place.run(image, "potluckone-tool") == "tool 1"
    for layer in get_config(place.store, image).layers:
        paths = [entry.path for entry in get_manifest(place.store, layer).entries]
        assert not [path for path in paths if path.endswith((".lock", "uv_cache.json", "direct_url.json"))]


def test_packages_are_upgraded_and_removed_inside_an_image(place, tmp_path):
    old = wheel(tmp_path, "potluckone", "1.0", "value = 1\n")
    new = wheel(tmp_path, "potluckone", "2.0", "value = 2\n")
    steps = (Run(("pass",)), PipInstall((str(old),)), PipInstall((str(new),)))
    image = place.build(*steps)
    with place.tree(image) as root:
        assert [path.name for path in root.glob("opt/site/potluckone-*")] == ["potluckone-2.0.dist-info"]
    assert place.run(image, "python3", "-c", "import potluckone; print(potluckone.value)") == "2"


def test_requirements_with_hashes_are_checked(place, tmp_path):
    package = wheel(tmp_path, "potluckone", "1.0", "")
    file = tmp_path / "requirements.txt"
    file.write_text(f"potluckone==1.0 --hash=sha256:{'0' * 64}\n")
    links = (("find-links", str(tmp_path)), ("no-index", ""))
    for steps in ((), (Run(("pass",)),)):
        with pytest.raises(ImageBuildError, match=r"[Hh]ash"):
            place.build(*steps, PipInstall((), links, (str(file),)))
    import hashlib

    good = hashlib.sha256(package.read_bytes()).hexdigest()
    file.write_text(f"potluckone==1.0 --hash=sha256:{good}\n")
    image = place.build(Run(("pass",)), PipInstall((), links, (str(file),)))
    assert place.run(image, "python3", "-c", "import potluckone; print('ok')") == "ok"
    locked = PipInstall((), links, locked=f"potluckone==1.0 --hash=sha256:{good}\n")
    assert place.build(locked)
    with pytest.raises(ImageBuildError, match="cannot be read"):
        place.build(PipInstall((), (), (str(tmp_path / "gone.txt"),)))


def test_a_locked_project_is_installed_without_itself(place, tmp_path):
    """Its lock names the wheel and its hash; a project without a lock is told what to do."""
    project = tmp_path / "project"
    project.mkdir()
    wheel(project, "potluckone", "1.0", "value = 7\n")
    (project / "pyproject.toml").write_text(
        f'''[project]
name = "own-project"
version = "1"
requires-python = ">=3.11"
dependencies = []
[dependency-groups]
extra = ["potluckone"]
[tool.uv]
find-links = ["{project}"]
no-index = true
'''
    )
    step = PipInstall(project=str(project), project_options=(("group", "extra"),))
    with pytest.raises(ImageBuildError, match="cannot be read"):
        place.build(step)
    subprocess.run([find_uv(), "lock", "--quiet"], cwd=project, check=True)
    for more in ((), (("no-index", ""),)):
        image = place.build(msgspec.structs.replace(step, options=more))
        code = "import potluckone, os; print(potluckone.value, os.listdir('/opt/site'))"
        assert place.run(image, "python3", "-c", code).startswith("7 ['potluckone")


def test_a_failed_step_shows_its_last_lines_and_keeps_what_came_before(place):
    good, bad = Run(("print('ran good')",)), Run(("print('almost'); raise SystemExit('the reason')",))
    with pytest.raises(ImageBuildError, match="failed with status 1") as caught:
        place.build(good, bad)
    assert caught.value.why.splitlines() == ["almost", "the reason"]
    with pytest.raises(ImageBuildError):
        place.build(good, bad)
    assert place.ran() == []
    assert list((place.cache / "tmp").iterdir()) == []
    with pytest.raises(ImageBuildError, match="failed") as caught:
        place.build(Shell(("/bin/none", "-c")), Run(("true",)))
    assert "missing in the image" in caught.value.fix


def test_the_host_is_hidden(place, tmp_path):
    (tmp_path / "secret").write_text("secret")
    code = f"""
import os
assert not os.path.exists({str(tmp_path)!r}), 'files'
assert 'POTLUCK_TEST_VARIABLE' not in os.environ, 'environment'
assert len([name for name in os.listdir('/proc') if name.isdigit()]) <= 2, 'processes'
try: os.chroot('/tmp')
except PermissionError: pass
else: raise SystemExit('a forbidden call worked')
"""
    os.environ["POTLUCK_TEST_VARIABLE"] = "x"
    try:
        place.build(Run((code,)))
    finally:
        del os.environ["POTLUCK_TEST_VARIABLE"]


def test_commands_of_this_machine_have_its_network_where_there_is_no_other(place, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        place.workshop = BwrapWorkshop()
        place.build(Run((f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)",)))


def test_cancelling_ends_the_step_and_cleans_up(place):
    def progress(stage, text):
        if text == "started":
            raise KeyboardInterrupt

    definition = ImageDefinition((*BASE, Run(("import time; print('started', flush=True); time.sleep(600)",))))
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        build(definition, place.store, place.cache, progress, place.workshop)
    assert time.monotonic() - start < 60
    assert list((place.cache / "tmp").iterdir()) == []


def test_a_step_that_takes_too_long_or_too_much_disk_is_stopped(place, monkeypatch):
    monkeypatch.setattr(builder_limits, "DISK_BYTES_MAX", 8 << 20)
    monkeypatch.setattr(builder_limits, "DISK_PAUSE_S", 0.1)
    code = "import time; open('/big', 'wb').write(b'x' * (32 << 20)); time.sleep(600)"
    with pytest.raises(ImageBuildError, match="wrote more than"):
        place.build(Run((code,)))
    call = cloudpickle.dumps((time.sleep, (600,), {}))
    with pytest.raises(ImageBuildError, match="stopped after 1 s"):
        place.build(RunFunction("sleep", call, timeout_s=1))


def test_a_function_runs_in_the_image(place):
    def write(path, *, text):
        print("writing")
        with open(path, "w") as file:
            file.write(text)

    call = cloudpickle.dumps((write, ("/written",), {"text": "by a function"}))
    image = place.build(RunFunction("write", call))
    with place.tree(image) as root:
        assert (root / "written").read_text() == "by a function"
    assert ("run", "writing") in place.said


def test_variables_of_a_step_are_its_own(place):
    code = "import os; open('/seen', 'w').write(os.environ['STEP'] + os.environ['IMAGE'])"
    image = place.build(Environment((("IMAGE", "b"),)), Run((code,), (("STEP", "a"),)))
    with place.tree(image) as root:
        assert (root / "seen").read_text() == "ab"
    assert dict(get_config(place.store, image).env).keys() & {"STEP", "IMAGE", "APT_CONFIG"} == {"IMAGE"}


def test_without_a_workshop_it_says_who_can(place, tmp_path):
    with pytest.raises(ImageBuildError, match="run commands"):
        build(ImageDefinition((*BASE, Run(("print('never built')",)))), place.store, tmp_path)


def test_debian_is_chosen_by_the_callers_python():
    assert (debian.suite("3.11.2"), debian.suite("3.13"), debian.suite("3.12.1")) == ("bookworm", "trixie", None)
