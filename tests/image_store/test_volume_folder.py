"""A volume's folder that a function writes to: what is read from it, and written to it, is inside of it."""

import os
import time

import pytest

from potluck_images import volume_scan, volume_tree, volume_write
from potluck_images.image import get_manifest
from potluck_images.memory import MemoryStore
from potluck_images.pack import pack
from potluck_images.tree import HostFile, Link
from potluck_images.volume_scan import scan


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "staging").mkdir()
    return tmp_path / "data"


def look(folder, known=None):
    staging = folder.parent / "staging"
    for left in staging.iterdir():
        left.unlink()
    return scan(folder, known or {}, staging)


def layer(store, folder):
    return get_manifest(store, pack(look(folder).fresh, store))


def test_files_folders_and_inner_links_are_found(folder):
    (folder / "sub").mkdir()
    (folder / "sub/a.txt").write_text("a")
    (folder / "sub/run.sh").write_text("x")
    (folder / "sub/run.sh").chmod(0o700)
    (folder / "link").symlink_to("sub/a.txt")
    (folder / "closed").write_text("c")
    (folder / "closed").chmod(0)
    found = look(folder)
    nodes = dict(found.fresh.sorted())
    assert nodes["link"] == Link("sub/a.txt")
    assert isinstance(nodes["sub/run.sh"], HostFile)
    assert nodes["sub/run.sh"].executable
    assert nodes["closed"].source.read_text() == "c"
    assert found.paths == {"sub", "sub/a.txt", "sub/run.sh", "link", "closed"}
    assert not found.left_behind


def test_nothing_outside_is_ever_read(folder, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (folder / "absolute").symlink_to(secret)
    (folder / "upwards").symlink_to("../secret")
    (folder / "folder").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    (folder / "ok").write_text("1")
    found = look(folder)
    assert found.paths == {"ok"}
    assert set(found.left_behind) == {"absolute", "upwards", "folder", "pipe"}
    assert len(list((tmp_path / "staging").iterdir())) == 1


def test_names_that_cannot_travel_stay(folder):
    (folder / os.fsdecode(b"\xff")).write_text("1")
    assert len(look(folder).left_behind) == 1


def test_only_what_was_written_is_read_again(folder):
    for name in "ab":
        (folder / name).write_text(name)
        os.utime(folder / name, (1000, 1000))
    first = look(folder)
    assert dict(first.fresh.sorted()).keys() == {"a", "b"}
    for left in (folder.parent / "staging").iterdir():
        left.unlink()
    known = volume_scan.settled(first.stamps, folder, time.time_ns())
    (folder / "b").write_text("c")
    os.utime(folder / "b", (1000, 1000))
    second = look(folder, known)
    assert dict(second.fresh.sorted()).keys() == {"b"}
    assert second.paths == {"a", "b"}


def test_what_was_written_just_now_is_not_taken_for_known(folder):
    (folder / "a").write_text("a")
    found = look(folder)
    assert volume_scan.settled(found.stamps, folder, time.time_ns()) == {}


def test_too_many_files_are_refused(folder, monkeypatch):
    monkeypatch.setattr(volume_scan, "FILES_MAX", 2)
    for name in "abc":
        (folder / name).touch()
    with pytest.raises(volume_scan.ImageError, match="at most 2"):
        look(folder)


def test_written_trees_read_back_the_same(folder, tmp_path):
    store = MemoryStore()
    (folder / "sub").mkdir()
    (folder / "sub/large").write_bytes(os.urandom(300_000))
    (folder / "small").write_text("1")
    (folder / "link").symlink_to("small")
    one = layer(store, folder)
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "write").mkdir()
    stamps = volume_write.write(store, volume_tree.EMPTY, one, other, tmp_path / "write", os.getuid())
    assert layer(store, other) == one
    assert stamps.keys() == {"sub/large", "small"}
    # Then a change: the rest is not touched.
    (folder / "small").unlink()
    (folder / "sub/new").write_text("n")
    (folder / "link").unlink()
    (folder / "link").mkdir()
    two = layer(store, folder)
    (other / "own").write_text("of the function")
    volume_write.write(store, one, two, other, tmp_path / "write", os.getuid())
    (other / "own").unlink()
    assert layer(store, other) == two


def test_a_link_that_a_function_put_in_the_way_leads_nowhere(folder, tmp_path):
    store = MemoryStore()
    (folder / "sub").mkdir()
    (folder / "sub/a").write_text("new")
    (folder / "a").write_text("new")
    after = layer(store, folder)
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "a").write_text("untouched")
    before = volume_tree.joined({path: node for path, node in volume_tree.nodes(after).items() if path == "sub"})
    other = tmp_path / "other"
    other.mkdir()
    (other / "sub").symlink_to(victim)
    (other / "a").symlink_to(victim / "a")
    (tmp_path / "write").mkdir()
    with pytest.raises(volume_scan.ImageError, match="changed while"):
        volume_write.write(store, before, after, other, tmp_path / "write", os.getuid())
    assert (victim / "a").read_text() == "untouched"
    # The last name alone is no way out: it is replaced.
    assert not (other / "a").is_symlink()
