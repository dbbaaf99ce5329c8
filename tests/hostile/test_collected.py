"""What a build step leaves is read by the node: tricks with links, devices and modes must not reach beyond it."""

from __future__ import annotations

import os
import platform
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from tests.hostile.decoys import Decoys

from potluck_images import changes
from potluck_images.build import build
from potluck_images.config import LayerRef
from potluck_images.definition import ImageDefinition, LocalPython, Run, Shell
from potluck_images.image import get_config, get_manifest
from potluck_images.manifest import Symlink
from potluck_images.memory import MemoryStore
from potluck_images.pack import pack
from potluck_images.unpack import unpack
from potluck_node.builder import BwrapWorkshop

# Harmless where it runs, in the build's own sandbox. `SECRET` is a path of the host.
TRICKS = """
import contextlib, os, socket, stat
os.makedirs('/trick/locked'), os.makedirs('/outside')
open('/trick/mine', 'w').write('mine')
attempts = {
    'absolute': lambda path: os.symlink('SECRET', path),
    'relative': lambda path: os.symlink('../../../../../../../../../..SECRET', path),
    'folder': lambda path: os.symlink(os.path.dirname('SECRET'), path),
    'proc': lambda path: os.symlink('/proc/self/root/SECRET', path),
    'hard': lambda path: os.link('SECRET', path),
    'own': lambda path: os.link('/trick/mine', path),
    'pipe': os.mkfifo,
    'disk': lambda path: os.mknod(path, stat.S_IFBLK | 0o666, os.makedev(8, 0)),
    'memory': lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 1)),
    'socket': lambda path: socket.socket(socket.AF_UNIX).bind(path),
    'setuid': lambda path: (open(path, 'w').write('x'), os.chmod(path, 0o6777)),
    'closed': lambda path: (open(path, 'w').write('x'), os.chmod(path, 0)),
}
for name, attempt in attempts.items():
    with contextlib.suppress(OSError):
        attempt('/trick/' + name)
os.chmod('/trick/locked', 0)
"""


@pytest.fixture
def decoys() -> Iterator[Decoys]:
    made = Decoys()
    yield made
    made.close()


def collected(secret: Path, folder: Path) -> tuple[MemoryStore, LayerRef, list[str]]:
    """The layer of a build step that plays all tricks, and what was said of it."""
    code = TRICKS.replace("SECRET", str(secret))
    python = LocalPython(sys.executable, platform.python_version())
    steps = (python, Shell(("/opt/python/bin/python3", "-c")), Run((code,)))
    store = MemoryStore()
    said: list[str] = []
    image = build(
        ImageDefinition(steps), store, folder, lambda stage, text: said.append(text), workshop=BwrapWorkshop()
    )
    layers = get_config(store, image).layers
    return store, next(each for each in layers if has_tricks(store, each)), said


def has_tricks(store: MemoryStore, layer: LayerRef) -> bool:
    return any(entry.path == "trick" for entry in get_manifest(store, layer).entries)


def bytes_of(store: MemoryStore, layer: LayerRef) -> bytes:
    return b"".join(store.get(chunk.digest) for chunk in get_manifest(store, layer).chunks)


def test_a_step_smuggles_nothing_out_of_the_host(decoys: Decoys, tmp_path: Path) -> None:
    store, layer, said = collected(decoys.home / "secret", tmp_path / "build")
    assert any("loses its set-user-id bit" in line for line in said)
    assert decoys.token.encode() not in bytes_of(store, layer)
    entries = {entry.path: entry for entry in get_manifest(store, layer).entries}
    assert {"trick/absolute", "trick/own", "trick/setuid", "trick/closed"} <= entries.keys()
    assert not {"trick/hard", "trick/pipe", "trick/socket"} & entries.keys()
    assert isinstance(entries["trick/absolute"], Symlink)
    out = tmp_path / "out"
    out.mkdir()
    unpack(store, layer, out)
    modes = {path.lstat().st_mode for path in out.rglob("*")}
    assert {stat.S_IFMT(mode) for mode in modes} <= {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}
    assert not any(mode & 0o7000 for mode in modes)
    assert decoys.untouched()


def test_it_would_be_smuggled_if_links_were_followed(decoys: Decoys, tmp_path: Path) -> None:
    upper, below = tmp_path / "upper", tmp_path / "below"
    upper.mkdir(), below.mkdir()
    (upper / "absolute").symlink_to(decoys.home / "secret")

    def follow(self: changes._Reader, entry: os.DirEntry[str], old: Path | None, path: str) -> None:
        self.tree.put_file(path, Path(entry.path))

    assert decoys.token.encode() not in packed(upper, below)
    with mock.patch.object(changes._Reader, "_read_link", follow):
        assert decoys.token.encode() in packed(upper, below)


def packed(upper: Path, below: Path) -> bytes:
    store = MemoryStore()
    return bytes_of(store, pack(changes.changed_tree(upper, below), store))
