from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from tests.image_store.helpers import tree_of

from potluck_images import chunk
from potluck_images.chunk import CHUNK_BYTES_MAX, SMALL_BYTES
from potluck_images.digest import digest
from potluck_images.errors import ImageBuildError, ImageError
from potluck_images.image import get_manifest
from potluck_images.manifest import File
from potluck_images.memory import MemoryStore
from potluck_images.pack import pack
from potluck_images.tree import Tree


@pytest.fixture
def folder(tmp_path):
    """Small and large files, an executable, links, an empty folder."""
    root = tmp_path / "tree"
    for number in range(300):
        path = root / f"package{number % 7}" / f"module{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(50) * (number % 90))
    (root / "empty folder").mkdir()
    (root / "empty").touch()
    (root / "large").write_bytes(os.urandom(5 << 20))
    (root / "edge").write_bytes(os.urandom(SMALL_BYTES))
    (root / "tool").write_bytes(b"#!/bin/sh\n")
    (root / "tool").chmod(0o777)
    (root / "package1" / "link").symlink_to("../large")
    return root


def _tree(folder):
    tree = Tree()
    tree.put_folder("", folder)
    return tree


def test_same_tree_same_layer_whatever_the_times(folder, tmp_path):
    first = pack(_tree(folder), MemoryStore())
    copy = tmp_path / "elsewhere"
    os.system(f"cp -r --no-preserve=timestamps '{folder}' '{copy}'")
    assert pack(_tree(copy), MemoryStore()) == first
    (copy / "empty").write_text("no more")
    assert pack(_tree(copy), MemoryStore()) != first


def test_packing_again_stores_nothing_new(folder):
    store = MemoryStore()
    first = pack(_tree(folder), store)
    before = store._bytes
    assert pack(_tree(folder), store) == first
    assert store._bytes == before


def test_manifest_says_what_is_there(folder):
    store = MemoryStore()
    layer = get_manifest(store, pack(_tree(folder), store))
    entries = {entry.path: entry for entry in layer.entries}
    assert entries["tool"].mode == 0o755
    assert entries["large"].mode == 0o644
    assert entries["package1/link"].target == "../large"
    for path, entry in entries.items():
        if isinstance(entry, File):
            assert entry.digest == digest((folder / path).read_bytes())


def test_an_insertion_moves_few_chunks(folder):
    store = MemoryStore()
    before = {ref.digest for ref in get_manifest(store, pack(_tree(folder), store)).chunks}
    data = (folder / "large").read_bytes()
    (folder / "large").write_bytes(data[: 1 << 20] + b"inserted" + data[1 << 20 :])
    after = {ref.digest for ref in get_manifest(store, pack(_tree(folder), store)).chunks}
    assert len(before) > 50
    assert len(after - before) <= 3


def test_bundles_stay_put_when_one_file_grows():
    files = [(f"package/module{number}.py", 8000) for number in range(2000)]
    before = {tuple(bundle) for bundle in chunk.bundles(files)}
    files[3] = (files[3][0], 60_000)
    after = {tuple(bundle) for bundle in chunk.bundles(files)}
    sizes = [8000 * len(bundle) for bundle in before]
    assert max(sizes) <= CHUNK_BYTES_MAX
    assert sum(sizes) / len(sizes) > CHUNK_BYTES_MAX / 3
    assert len(after - before) <= len(before) // 2


def test_cancelling_by_progress(folder):
    def progress(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(_tree(folder), MemoryStore(), progress)


def test_a_file_that_cannot_be_read_is_named():
    tree = Tree()
    tree.put_file("x", Path("/proc/self/mem"))
    with pytest.raises(ImageBuildError, match="/proc/self/mem"):
        pack(tree, MemoryStore())


def test_what_cannot_travel_is_named(folder, tmp_path):
    os.mkfifo(folder / "pipe")
    with pytest.raises(ImageBuildError, match="pipe"):
        _tree(folder)
    (folder / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        with pytest.raises(ImageBuildError, match="/s is no regular file"):
            Tree().put_file("s", tmp_path / "s")
    with pytest.raises(ImageBuildError, match="gone"):
        Tree().put_file("x", tmp_path / "gone")
    (folder / "link").symlink_to("../../etc/passwd")
    with pytest.raises(ImageError, match="leaves the tree"):
        _tree(folder)


def test_a_name_that_is_not_text_is_named(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xff", "wb"):
        pass
    with pytest.raises(ImageBuildError, match="UTF-8"):
        _tree(tmp_path)


def test_a_file_that_changes_meanwhile_is_named(folder):
    tree = _tree(folder)
    (folder / "tool").write_bytes(b"longer than before")
    with pytest.raises(ImageBuildError, match="changed"):
        pack(tree, MemoryStore())


def test_a_file_and_a_folder_of_one_name_clash():
    with pytest.raises(ImageBuildError, match="both"):
        tree_of({"a": b"", "a/b": b""})
    with pytest.raises(ImageBuildError, match="both"):
        tree_of({"a/b": b"", "a": b""})


def test_removals_are_written_in_canonical_form():
    tree = tree_of({"b/new": b"x", "file": b"y"})
    for path in ("b", "b/old", "file", "file/below", "a/gone"):
        tree.remove(path)
    assert tree.removed() == ["a/gone", "b"]
    store = MemoryStore()
    assert get_manifest(store, pack(tree, store)).removed == ("a/gone", "b")
