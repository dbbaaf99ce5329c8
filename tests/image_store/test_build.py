from __future__ import annotations

import platform
import socket
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

import pytest

from potluck_images.build import build
from potluck_images.definition import Environment, ImageDefinition, LocalPython, PipInstall, Source, Workdir
from potluck_images.disk import DiskStore
from potluck_images.errors import ImageBuildError, ImageError, PythonVersionError
from potluck_images.image import get_config
from potluck_images.materialise import materialise
from potluck_images.memory import MemoryStore
from potluck_images.pip_install import find_uv

PYTHON = LocalPython(sys.executable, platform.python_version())
IMPORTS = "import potluck.wire, potluck_images.definition, msgspec, cloudpickle, ssl, sqlite3, ctypes"


def wheel(folder: Path, name: str, version: str, code: str) -> Path:
    """A pure-Python wheel, made without any tool."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}/__init__.py", code)
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/entry_points.txt", f"[console_scripts]\n{name}-tool = {name}:main\n")
        file.writestr(f"{info}/RECORD", "")
    return path


def run_in(store, image, home, *command: str) -> str:
    config = get_config(store, image)
    env = [word for name, value in config.env for word in ("--setenv", name, value)]
    bwrap = ["bwrap", "--proc", "/proc", "--dev", "/dev", "--unshare-all", "--die-with-parent", "--clearenv", *env]
    with materialise(store, image, home) as root:
        bind = ["bwrap", "--ro-bind", str(root), "/", *bwrap[1:], "--chdir", config.workdir]
        done = subprocess.run([*bind, *command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """One store and cache for all tests here, so that the interpreter is packed once."""
    folder = tmp_path_factory.mktemp("build")
    store = DiskStore(folder / "store")
    yield store, folder / "cache", folder / "home"
    store.close()


def test_the_callers_python_runs_in_a_sandbox(place):
    store, cache, home = place
    stages = []
    image = build(ImageDefinition((PYTHON,)), store, cache, lambda stage, text: stages.append(stage))
    config = get_config(store, image)
    assert config.python_version == platform.python_version()
    assert config.machine == platform.machine()
    code = f"{IMPORTS}; import sys, pwd, json; print(sys.version, sys.prefix, pwd.getpwuid(0).pw_name, json.__cached__)"
    out = run_in(store, image, home, config.python, "-c", code)
    assert out == f"{sys.version} /opt/python root /opt/python/lib/{_library()}/json/__pycache__/{_pyc('__init__')}"
    assert run_in(store, image, home, config.python, "-c", "print('ä', open('/etc/hosts').read()[:9])") == "ä 127.0.0.1"
    assert set(stages) == {"python", "runtime"}


def _library():
    return f"python{sys.version_info[0]}.{sys.version_info[1]}"


def _pyc(name):
    return f"{name}.{sys.implementation.cache_tag}.pyc"


def test_byte_code_is_used_and_names_no_path_of_this_machine(place):
    store, cache, home = place
    image = build(ImageDefinition((PYTHON,)), store, cache)
    code = "import json.decoder as d, sys; print(d.JSONDecoder.decode.__code__.co_filename)"
    assert run_in(store, image, home, "python3", "-c", code) == f"/opt/python/lib/{_library()}/json/decoder.py"
    with materialise(store, image, home) as root:
        here = sysconfig.get_path("stdlib").encode()
        pycs = list(root.rglob("*.pyc"))
        assert len(pycs) > 300
        named = [path for path in pycs if here in path.read_bytes() and "_sysconfigdata" not in path.name]
        assert named == []


def test_a_second_build_is_cached_and_a_lost_chunk_is_made_again(place):
    store, cache, _ = place
    image = build(ImageDefinition((PYTHON,)), store, cache)
    texts = []
    assert build(ImageDefinition((PYTHON,)), store, cache, lambda stage, text: texts.append(text)) == image
    assert texts == [f"Python {platform.python_version()}"]
    layer = get_config(store, image).layers[0]
    store.discard([layer.chunks[0]])
    assert build(ImageDefinition((PYTHON,)), store, cache) == image
    assert store.has(layer.chunks[0])
    assert list((cache / "tmp").iterdir()) == []


def test_same_definition_same_image_in_another_place(place, tmp_path):
    store, cache, _ = place
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "main.py").write_text("print(1)\n")
    package = wheel(tmp_path, "potluckone", "1.0", "def main(): return 41\n")
    steps = (
        PYTHON,
        PipInstall((str(package),)),
        Environment((("B", "2"), ("A", "1"))),
        Workdir("/app"),
        Source((("/app", str(tmp_path / "app")),)),
    )
    first = build(ImageDefinition(steps), store, cache)
    other = MemoryStore()
    assert build(ImageDefinition(steps), other, tmp_path / "other cache") == first
    assert get_config(other, first) == get_config(store, first)


def test_packages_are_installed_and_later_ones_may_upgrade(place, tmp_path):
    store, cache, home = place
    one = wheel(tmp_path, "potluckone", "1.0", "value = 1\ndef main(): print('tool', value)\n")
    two = wheel(tmp_path, "potlucktwo", "1.0", "value = 2\ndef main(): pass\n")
    newer = wheel(tmp_path, "potluckone", "2.0", "value = 10\ndef main(): print('tool', value)\n")
    steps = (PYTHON, PipInstall((str(one),)), PipInstall((str(two), str(newer))))
    image = build(ImageDefinition(steps), store, cache)
    assert len(get_config(store, image).layers) == 3
    code = "import potluckone, potlucktwo; print(potluckone.value + potlucktwo.value, potluckone.__cached__)"
    out = run_in(store, image, home, "python3", "-c", code)
    assert out == f"12 /opt/site/potluckone/__pycache__/{_pyc('__init__')}"
    assert run_in(store, image, home, "potluckone-tool") == "tool 10"
    with materialise(store, image, home) as root:
        assert not list(root.glob("opt/site/potluckone-1.0*"))
        assert not list(root.glob("opt/site/**/direct_url.json"))


def test_uv_errors_are_shown(place):
    store, cache, _ = place
    step = PipInstall(("potluck-no-such-package==1",), (("no-index", ""),))
    with pytest.raises(ImageBuildError, match="potluck-no-such-package") as caught:
        build(ImageDefinition((PYTHON, step)), store, cache)
    assert caught.value.kind == "image-build"
    assert list((cache / "tmp").iterdir()) == []


def test_nothing_but_wheels_is_installed(place, tmp_path):
    """A package whose build would run code here is refused, and its code does not run."""
    store, cache, _ = place
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "setup.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    for step in (
        PipInstall((str(tmp_path / "evil"),)),
        PipInstall((f"evil @ file://{tmp_path}/evil",)),
        PipInstall(("x",), (("no-binary", ":all:"),)),
        PipInstall(("--no-binary=:all:", str(tmp_path / "evil"))),
    ):
        with pytest.raises(ImageBuildError):
            build(ImageDefinition((PYTHON, step)), store, cache)
    assert not (tmp_path / "ran").exists()


def test_cancelling_ends_uv_and_cleans_up(place, tmp_path):
    store, cache, _ = place
    package = wheel(tmp_path, "potluckone", "1.0", "")

    def progress(stage, text):
        if stage == "pip" and "potluckone" not in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(ImageDefinition((PYTHON, PipInstall((str(package),)))), store, cache, progress)
    assert list((cache / "tmp").iterdir()) == []


def test_cancelling_does_not_wait_for_uv(place):
    """The index never answers; uv itself would wait for 30 s."""
    store, cache, _ = place

    def progress(stage, text):
        if stage == "pip" and text != "potluckone":
            raise KeyboardInterrupt

    with socket.create_server(("127.0.0.1", 0)) as silent:
        index = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        start = time.monotonic()
        step = PipInstall(("potluckone",), (("index-url", index),))
        with pytest.raises(KeyboardInterrupt):
            build(ImageDefinition((PYTHON, step)), store, cache, progress)
    assert time.monotonic() - start < 10
    assert list((cache / "tmp").iterdir()) == []


def test_source_is_read_anew_without_what_is_no_source(place, tmp_path):
    store, cache, home = place
    app = tmp_path / "app"
    for path in (
        "main.py",
        "sub/mod.py",
        ".git/config",
        ".venv/x.py",
        "env/pyvenv.cfg",
        "env/y.py",
        "__pycache__/m.pyc",
    ):
        (app / path).parent.mkdir(parents=True, exist_ok=True)
        (app / path).write_text("print('one')\n")
    single = tmp_path / "single.py"
    single.write_text("")
    definition = ImageDefinition((PYTHON, Source((("/app", str(app)), ("/app/deep/single.py", str(single))))))
    image = build(definition, store, cache)
    assert run_in(store, image, home, "python3", "main.py") == "one"
    with materialise(store, image, home) as root:
        found = sorted(str(path.relative_to(root / "app")) for path in (root / "app").rglob("*") if path.is_file())
        assert found == ["deep/single.py", "main.py", "sub/mod.py"]
    (app / "main.py").write_text("print('two')\n")
    again = build(definition, store, cache)
    assert again != image
    assert run_in(store, again, home, "python3", "main.py") == "two"


def test_clear_errors(place, tmp_path):
    store, cache, _ = place
    with pytest.raises(PythonVersionError):
        build(ImageDefinition((LocalPython(sys.executable, "3.11.999"),)), store, cache)
    with pytest.raises(ImageBuildError, match="does not answer"):
        build(ImageDefinition((LocalPython("/bin/false", "3.11.7"),)), store, cache)
    with pytest.raises(ImageBuildError, match="two Pythons"):
        build(ImageDefinition((PYTHON, PYTHON)), store, cache)
    with pytest.raises(ImageBuildError, match="needs a Python"):
        build(ImageDefinition((PipInstall(("x",)),)), store, cache)
    with pytest.raises(ImageBuildError, match="cannot be read"):
        build(ImageDefinition((Source((("/app", str(tmp_path / "gone")),)),)), store, cache)
    with pytest.raises(ImageBuildError, match="absolute"):
        build(ImageDefinition((Source((("app", str(tmp_path)),)),)), store, cache)
    with pytest.raises(ImageError, match="absolute path"):
        build(ImageDefinition((Workdir("app/.."),)), store, cache)


def test_a_python_without_potluck_says_what_to_install(place, tmp_path):
    store, cache, _ = place
    subprocess.run([find_uv(), "venv", "-q", "--python", sys.executable, tmp_path / "bare"], check=True)
    bare = LocalPython(str(tmp_path / "bare/bin/python"), platform.python_version())
    with pytest.raises(ImageBuildError, match="pip install potluck"):
        build(ImageDefinition((bare,)), store, cache)


def test_definition_loads_nothing_heavy():
    code = "import sys, potluck_images.definition; print([name for name in sys.modules if name in %r])"
    heavy = ["blake3", "zstandard", "pyfastcdc", "sqlite3", "subprocess", "potluck_images.chunk"]
    out = subprocess.run([sys.executable, "-c", code % heavy], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
