"""Definitions on their way to another machine, which trusts nothing that they name."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import pytest
from tests.image_store.test_build import wheel

from potluck_images.build import build
from potluck_images.config import ImageConfig
from potluck_images.definition import (
    AddFiles,
    DebianSlim,
    ImageDefinition,
    LocalPython,
    PipInstall,
    Registry,
    Run,
    Scratch,
    Source,
)
from potluck_images.errors import ImageBuildError, PythonVersionError
from potluck_images.image import put_config
from potluck_images.memory import MemoryStore
from potluck_images.pack import pack
from potluck_images.ship import ship, unship
from potluck_images.tree import Folder, Link, Text, Tree

VERSION = platform.python_version()


@pytest.fixture
def here(tmp_path):
    made = tmp_path / "here"
    (made / "in").mkdir(parents=True)
    (made / "in" / "text").write_text("hello")
    (made / "in" / "up").symlink_to("../../../opt")
    (made / "in" / "whole").symlink_to("/etc/passwd")
    (made / "left.tmp").write_text("x")
    (made / "empty").mkdir()
    (made / "tool.py").write_text("1")
    (made / "tool.py").chmod(0o755)
    return made


def there(tmp_path):
    folder = tmp_path / "there"
    folder.mkdir()
    return folder


def test_files_come_out_as_they_would_at_home(here, tmp_path):
    store = MemoryStore()
    definition = ImageDefinition(
        (
            Scratch(),
            AddFiles("/opt/data/deep", str(here), ("*.tmp",)),
            AddFiles("/", str(here / "in"), ("up",)),
            AddFiles("/one", str(here / "tool.py")),
            Source((("/app/tool.py", str(here / "tool.py")), ("/app/in", str(here / "empty")))),
        )
    )
    sent, shipped = ship(definition, store, print, {})
    assert str(tmp_path) not in repr(sent)
    folder = there(tmp_path)
    received = unship(sent, store, shipped, folder)
    assert build(received, store, tmp_path / "a") == build(definition, store, tmp_path / "b")
    assert not list(folder.rglob("*.tmp"))


def test_a_definition_without_files_ships_none():
    definition = ImageDefinition((Scratch(), Run(("x",), secrets=("A",))))
    assert ship(definition, MemoryStore(), print, {}) == (definition, "")


def test_lock_files_travel_as_text_and_wheels_as_files(here, tmp_path):
    (here / "requirements.txt").write_text("first==1\n")
    made = Path(wheel(here, "second", "1.0", ""))
    step = PipInstall(
        (str(made), "third"), (("find-links", str(made.parent)), ("pre", "")), (str(here / "requirements.txt"),)
    )
    store = MemoryStore()
    sent, shipped = ship(ImageDefinition((step,)), store, print, {})
    (received,) = unship(sent, store, shipped, there(tmp_path)).steps
    assert (received.requirements, received.locked) == ((), "first==1\n")
    assert Path(received.packages[0]).read_bytes() == made.read_bytes()
    assert received.packages[1] == "third"
    assert os.listdir(received.options[0][1]) == [made.name]
    assert received.options[1] == ("pre", "")


def test_the_builder_uses_its_own_interpreter_of_the_same_version(tmp_path):
    minor = VERSION.rpartition(".")[0]
    sent, _ = ship(ImageDefinition((DebianSlim("/callers/python", f"{minor}.99"),)), MemoryStore(), print, {})
    (received,) = unship(sent, MemoryStore(), "", tmp_path).steps
    assert (received.executable, received.version) == (sys.executable, VERSION)
    with pytest.raises(PythonVersionError, match="runs"):
        unship(ImageDefinition((DebianSlim("", "3.2.1"),)), MemoryStore(), "", tmp_path)


@pytest.mark.parametrize(
    "step",
    [
        AddFiles("/x", "/etc/shadow"),
        AddFiles("/x", "etc"),
        AddFiles("/x", "shipped:../outside"),
        AddFiles("/x", "shipped:0/../../outside"),
        AddFiles("/x", "shipped:/etc/shadow"),
        AddFiles("/x", "shipped:0/etc"),
        AddFiles("/x", "shipped:0/etc/shadow"),
        Source((("/x", "/etc/shadow"),)),
        Source((("/x", "shipped:0/etc/shadow"),)),
        PipInstall(("/etc/passwd",)),
        PipInstall(("shipped:0/etc/passwd",)),
        PipInstall(("shipped:0",)),
        PipInstall(("x",), (("find-links", "/etc"),)),
        PipInstall(("x",), (("--find-links", "shipped:0"),)),
        PipInstall(("x",), (("find-links", "shipped:0/etc"),)),
        PipInstall(requirements=("/etc/passwd",)),
        PipInstall(project="/root"),
        LocalPython(sys.executable, VERSION),
        Registry("127.0.0.1:5000/x", sys.executable, VERSION),
    ],
    ids=str,
)
def test_what_a_stranger_may_not_name_is_refused(step, tmp_path):
    tree = Tree()
    tree.put("0", Folder())
    tree.put("0/etc", Link("/etc"))
    tree.put("0/plain", Text(b"x"))
    store = MemoryStore()
    shipped = put_config(store, ImageConfig(layers=(pack(tree, store),)))
    (tmp_path / "outside").write_text("secret")
    with pytest.raises(ImageBuildError):
        unship(ImageDefinition((step,)), store, shipped, there(tmp_path))


def test_what_can_only_be_built_at_home_is_not_sent():
    with pytest.raises(ImageBuildError, match="cannot be built on another node") as caught:
        ship(ImageDefinition((LocalPython(sys.executable, VERSION),)), MemoryStore(), print, {})
    assert "debian_slim" in caught.value.fix
