"""Bases from a real registry, and the Python that they have or get."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
from tests.image_store.registry import member, needs_registry, put_image, running_registry, symlink, tar_of
from tests.image_store.test_commands import Place

import potluck
from potluck_images import oci
from potluck_images.build import build
from potluck_images.definition import AddFiles, ImageDefinition, LocalPython, PipInstall, Registry, Run
from potluck_images.errors import ImageBuildError, ImageError, PythonVersionError
from potluck_images.image import get_config
from potluck_images.memory import MemoryStore

pytestmark = needs_registry
VERSION = platform.python_version()


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with running_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    made = Place(tmp_path_factory.mktemp("place"))
    yield made
    made.store.close()


def make(place, *steps, progress=lambda stage, text: None):
    return build(ImageDefinition(steps), place.store, place.cache, progress, place.workshop)


@pytest.fixture(scope="module")
def python_image(registry, tmp_path_factory):
    """One with a Python of this version and a shell, under a tag."""
    folder, store = tmp_path_factory.mktemp("python"), MemoryStore()
    steps = (LocalPython(sys.executable, VERSION), AddFiles("/bin/sh", "/bin/sh"))
    image = build(ImageDefinition(steps), store, folder)
    oci.push(image, f"{registry}/python:own", store, folder, lambda text: None)
    return f"{registry}/python:own"


def test_the_images_own_python_is_found(place, python_image):
    said: list[str] = []
    step = Registry(python_image, sys.executable, VERSION)
    image = make(place, step, Run(("echo hi > /srv", 'python3 -c \'open("/py", "w").write("x")\'')))
    config = get_config(place.store, image)
    assert (config.python, config.python_version) == ("/opt/python/bin/python3", VERSION)
    with place.tree(image) as root:
        assert (root / "srv").read_text() == "hi\n"
        assert (root / "py").read_text() == "x"
    # A second build asks neither the registry nor the image again.
    make(place, step, Run(("true",)), progress=lambda stage, text: said.append(text))
    assert not [text for text in said if "layer" in text]


def test_another_python_is_refused(place, registry):
    """It says that it is 2.7: a script does, under the name of an interpreter."""
    fake = b'#!/bin/sh\necho \'["/usr/bin/python3", "2.7.18"]\'\n'
    with open("/bin/sh", "rb") as shell:
        files = [member("bin/sh", shell.read(), mode=0o755), member("usr/bin/python3", fake, mode=0o755)]
    libraries = _libraries("/bin/sh")
    reference = put_image(registry, "old", tar_of(*files, *libraries))
    with pytest.raises(PythonVersionError, match=r"has Python 2\.7\.18") as caught:
        make(place, Registry(reference, sys.executable, VERSION))
    assert "add_python" in caught.value.fix


def _libraries(program):
    """What it is linked with, as tar entries."""
    lines = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout.split()
    for path in sorted({word for word in lines if word.startswith("/")}):
        with open(path, "rb") as file:
            yield member(path[1:], file.read(), mode=0o755)


def test_an_image_without_python_gets_the_callers(place, registry):
    """Its /lib is a link, as in every Debian; nothing of it is replaced."""
    layer = tar_of(member("usr", None), member("usr/lib", None), member("etc/hosts", b"own"), symlink("lib", "usr/lib"))
    reference = put_image(registry, "bare", layer, run={"Env": ["A=b"], "WorkingDir": "/work"})
    image = make(place, Registry(reference, sys.executable, VERSION, add_python=True), PipInstall())
    config = get_config(place.store, image)
    assert (config.python, config.workdir, dict(config.env)["A"]) == ("/opt/python/bin/python3", "/work", "b")
    with place.tree(image) as root:
        assert (root / "lib").is_symlink()
        assert (root / "etc/hosts").read_bytes() == b"own"
    assert place.run(image, config.python, "-c", "import msgspec, sys; print(sys.prefix)") == "/opt/python"


def test_what_is_missing_is_said(place, registry):
    bare = put_image(registry, "empty", tar_of(member("etc/x")))
    with pytest.raises(ImageBuildError, match="Looking for Python failed"):
        make(place, Registry(bare, sys.executable, VERSION))
    with pytest.raises(ImageError, match="gone"):
        make(place, Registry(f"{registry}/gone:1", sys.executable, VERSION))
    with pytest.raises(ImageBuildError, match="first step"):
        make(place, LocalPython(sys.executable, VERSION), Registry(bare, sys.executable, VERSION))


def test_a_dockerfile_is_built(place, python_image, tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app/main.py").write_text("print('from a file')\n")
    (tmp_path / "app/x.log").write_text("")
    (tmp_path / ".dockerignore").write_text("**/*.log\n")
    (tmp_path / "Dockerfile").write_text(
        f"""FROM {python_image}
ARG WHO=you
ENV GREETING="hello $WHO"
WORKDIR /srv
COPY app app
RUN python3 app/main.py > out && \\
    echo "$GREETING $WHO" >> out
"""
    )
    definition = potluck.Image.from_dockerfile(tmp_path / "Dockerfile")._definition()
    image = make(place, *definition.steps)
    assert get_config(place.store, image).workdir == "/srv"
    with place.tree(image) as root:
        assert (root / "srv/out").read_text() == "from a file\nhello you you\n"
        assert not (root / "srv/app/x.log").exists()
