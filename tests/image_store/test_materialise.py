from __future__ import annotations

import errno
import os
import stat
import threading

import msgspec
import pytest
from tests.image_store.helpers import image_of, listing

from potluck_images import materialise as module
from potluck_images.config import ImageConfig, LayerRef
from potluck_images.digest import digest
from potluck_images.errors import CorruptDataError, ImageError, NotFoundError
from potluck_images.image import get_config, get_manifest, put_config
from potluck_images.manifest import ChunkRef, Manifest, Piece
from potluck_images.materialise import materialise, prune
from potluck_images.memory import MemoryStore
from potluck_images.merge import STANDARD_FOLDERS
from potluck_images.tree import Text, Tree

STANDARD = {f"{name}/": b"" for name in STANDARD_FOLDERS}


@pytest.fixture
def store():
    return MemoryStore()


def test_layers_merge_and_the_upper_wins(store, tmp_path):
    big = os.urandom(300_000)
    image = image_of(
        store,
        {"a/x": b"lower", "a/y": b"lower", "file": b"lower", "folder/below/deep": b"lower", "link": "a"},
        {"a/x": b"upper", "file/now/folder": b"upper", "folder": b"upper", "link/new": b"upper", "big": big},
    )
    with materialise(store, image, tmp_path) as root:
        assert listing(root) == STANDARD | {
            "a/": b"",
            "a/x": b"upper",
            "a/y": b"lower",
            "file/": b"",
            "file/now/": b"",
            "file/now/folder": b"upper",
            "folder": b"upper",
            "link/": b"",
            "link/new": b"upper",
            "big": big,
        }


def test_modes_and_times(store, tmp_path):
    (tmp_path / "tool").write_bytes(b"#!/bin/sh\n")
    (tmp_path / "tool").chmod(0o700)
    tree = Tree()
    tree.put_file("bin/tool", tmp_path / "tool")
    image = image_of(store, tree, {"bin/data": b"data", "bin/same": b"#!/bin/sh\n", "bin/link": "data"})
    old = os.umask(0o077)
    try:
        root = materialise(store, image, tmp_path / "home").path
    finally:
        os.umask(old)
    modes = {
        name: stat.S_IMODE(os.lstat(root / name).st_mode) for name in ("", "bin", "bin/tool", "bin/data", "bin/same")
    }
    assert modes == {"": 0o755, "bin": 0o755, "bin/tool": 0o555, "bin/data": 0o444, "bin/same": 0o444}
    assert {os.lstat(root / name).st_mtime for name in ("", "bin", "bin/tool", "bin/link")} == {315_532_800}


def test_a_link_below_never_redirects_a_file_above(store, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_bytes(b"safe")
    image = image_of(
        store,
        {"a": str(outside), "b": str(outside / "victim"), "c/d": "../a", "proc": str(outside), "etc": str(outside)},
        {"a/victim": b"evil", "b": b"evil", "c/d/victim": b"evil", "etc/victim": b"evil"},
    )
    with materialise(store, image, tmp_path / "home") as root:
        assert listing(outside) == {"victim": b"safe"}
        assert (root / "a").is_dir()
        assert not (root / "a").is_symlink()
        assert (root / "b").read_bytes() == b"evil"
        assert not any((root / name).is_symlink() for name in STANDARD_FOLDERS)


def test_second_time_is_instant_and_shares_files(store, tmp_path):
    image = image_of(store, {"a": b"content"})
    other = image_of(store, {"b": b"content"})
    first = materialise(store, image, tmp_path)
    store.close()
    assert materialise(store, image, tmp_path).path == first.path
    with pytest.raises(NotFoundError):
        materialise(store, other, tmp_path)
    store2 = MemoryStore()
    image_of(store2, {"b": b"content"})
    second = materialise(store2, other, tmp_path)
    assert (first.path / "a").stat().st_ino == (second.path / "b").stat().st_ino


def test_threads_at_once_make_one_root(store, tmp_path):
    image = image_of(store, {f"d{number}/f": os.urandom(9000) for number in range(200)})
    roots, failures = [], []

    def work():
        try:
            roots.append(materialise(store, image, tmp_path).path)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(set(roots)) == 1
    assert len(listing(roots[0])) == 400 + len(STANDARD)
    assert not list((roots[0].parent.parent / "new").iterdir())


def test_prune_spares_what_is_held(store, tmp_path):
    first, second = image_of(store, {"a": b"shared", "b": b"first"}), image_of(store, {"a": b"shared"})
    (tmp_path / "an earlier boot").mkdir()
    one, two = materialise(store, first, tmp_path), materialise(store, second, tmp_path)
    again = materialise(store, first, tmp_path)
    one.release()
    one.release()
    assert prune(tmp_path, store) == []
    again.release()
    assert prune(tmp_path, store) == [first]
    assert not one.path.exists()
    assert (two.path / "a").read_bytes() == b"shared"
    place = two.path.parent.parent
    assert [path.read_bytes() for path in (place / "files").glob("??/*")] == [b"shared"]
    assert list(tmp_path.iterdir()) == [place]
    two.release()
    assert prune(tmp_path, store) == [second]
    assert not list((place / "files").glob("??/*"))


def test_copies_where_links_are_refused(store, tmp_path, monkeypatch):
    image = image_of(store, {"a": b"content", "empty": b""})

    def refuse(*args, **kwargs):
        raise OSError(errno.EMLINK, "too many links")

    monkeypatch.setattr(os, "link", refuse)
    with materialise(store, image, tmp_path) as root:
        assert (root / "a").read_bytes() == b"content"
        assert (root / "a").stat().st_nlink == 1
        assert stat.S_IMODE((root / "a").stat().st_mode) == 0o444
        assert (root / "a").stat().st_mtime == 315_532_800


def _forge(store, change):
    """The image of one file, with its manifest's file and chunk changed."""
    image = image_of(store, {"a": b"content"})
    (layer,) = get_config(store, image).layers
    good = get_manifest(store, layer)
    data = msgspec.msgpack.encode(change(good))
    forged = LayerRef(digest(data).hex(), (store.add(data),))
    return put_config(store, ImageConfig((forged,)))


def _with(good: Manifest, size: int, **fields: object) -> Manifest:
    (file,) = good.entries
    changed = msgspec.structs.replace(file, size=size, pieces=(Piece(0, 0, size),), **fields)
    return Manifest(good.format, (ChunkRef(good.chunks[0].digest, size),), (changed,))


@pytest.mark.parametrize(
    "change",
    [
        lambda good: _with(good, 7, digest=digest(b"something else")),
        lambda good: _with(good, 9),
        lambda good: _with(good, 5),
    ],
    ids=["another digest", "larger than its chunk", "smaller than its chunk"],
)
def test_a_manifest_that_lies_is_refused_and_leaves_nothing(store, tmp_path, change):
    image = _forge(store, change)
    with pytest.raises(ImageError):
        materialise(store, image, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes()]
    assert not list(tmp_path.glob("*/roots/*"))
    assert prune(tmp_path, store) == []


def test_too_large_is_refused_before_anything_is_written(store, tmp_path):
    image = image_of(store, {"a": b"x" * 5000})
    with pytest.raises(ImageError, match="MiB"):
        materialise(store, image, tmp_path, bytes_max=4999)
    assert not list(tmp_path.glob("*/files/??/*"))


def test_a_chunk_that_is_missing_or_bad_is_said_and_can_be_mended(store, tmp_path):
    data = os.urandom(1000)
    image = image_of(store, {"a": data})
    name = digest(data)
    store._frames[name] = store._frames[name][:-50] + bytes(50)
    with pytest.raises(CorruptDataError):
        materialise(store, image, tmp_path)
    with pytest.raises(NotFoundError):
        materialise(store, image, tmp_path)
    store.add(data)
    assert (materialise(store, image, tmp_path).path / "a").read_bytes() == data


@pytest.mark.parametrize("image", ["", "..", "../../etc", "AB" * 32, "zz" * 32])
def test_ids_that_are_none_are_refused(store, tmp_path, image):
    with pytest.raises(ImageError):
        materialise(store, image, tmp_path)


def test_another_boot_begins_anew(store, tmp_path, monkeypatch):
    image = image_of(store, {"a": b"content"})
    first = materialise(store, image, tmp_path / "home").path
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(module, "_BOOT_ID", tmp_path / "boot_id")
    second = materialise(store, image, tmp_path / "home").path
    assert second != first
    prune(tmp_path / "home", store)
    assert second.exists()
    assert not first.exists()


def test_a_layer_removes_what_lies_below(store, tmp_path):
    upper = Tree()
    upper.put("emptied/new", Text(b"upper"))
    for path in ("emptied", "a/gone", "never/there", "a/kept/x", "link/x"):
        upper.remove(path)
    lower = {"emptied/old": b"", "a/gone": b"", "a/stays": b"", "a/kept": b"", "b/x": b"", "link": "b"}
    image = image_of(store, lower, upper, {"a/gone": b"back"})
    with materialise(store, image, tmp_path) as root:
        assert listing(root) == STANDARD | {
            "emptied/": b"",
            "emptied/new": b"upper",
            "a/": b"",
            "a/stays": b"",
            "a/kept": b"",
            "a/gone": b"back",
            "b/": b"",
            "b/x": b"",
            "link": "b",
        }
