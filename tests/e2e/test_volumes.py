"""Volumes over real nodes: mounted in sandboxes, committed, reloaded, and out of reach of strangers."""

import asyncio
import io
import os
import shutil

import pytest
from tests.e2e import volume_sample as sample
from tests.e2e.mesh import Mesh, wait_until

import potluck
from potluck import Queue, Volume, calls
from potluck.errors import AlreadyExistsError, InvalidError, NoPeerError, NotFoundError


@pytest.fixture(scope="module")
def trusting(tmp_path_factory):
    """Two providers, and a node that calls and trusts them."""
    mesh = Mesh(tmp_path_factory.mktemp("trusting"))
    try:
        caller = mesh.caller("cas", "--trust", "mesh")
        mesh.provider("ann")
        mesh.provider("bob")
        wait_until(lambda: len(caller.status().peers) == 2, "finding the providers")
        yield mesh
    finally:
        mesh.stop()


@pytest.fixture
def use(use_node, monkeypatch):
    monkeypatch.setattr(calls, "_connection", None)
    yield use_node
    if calls._connection:
        calls._connection.close()


@pytest.fixture
def empty(trusting, use):
    """The sample's volume with nothing in it."""
    use(trusting.nodes[0])
    Volume.objects.delete("shared", allow_missing=True)
    sample.shared._object_id, sample.shared._facts = "", None
    for each in (sample.look, sample.in_sub, sample.look_strictly):
        mounted = each._options.volumes[0][1]
        mounted._object_id, mounted._facts = "", None
    return sample.shared


def contents(volume):
    files = [entry.path for entry in volume.iterdir("/") if entry.type == 1]
    return {path: b"".join(volume.read_file(path)).decode() for path in files}


def test_what_one_function_writes_others_read(empty):
    with sample.app.run():
        assert sample.write.remote("a.txt", "one") == "3"
        # Before the call returned, it was committed.
        assert contents(empty) == {"a.txt": "one"}
        assert sample.write.remote("sub/b.txt", "two") == "3"
        assert sample.read.remote() == {"a.txt": "one", "sub/b.txt": "two"}
        sample.remove.remote("a.txt")
        assert sample.read.remote() == {"sub/b.txt": "two"}
        with pytest.raises(ValueError, match="on purpose"):
            sample.write_and_fail.remote()
        assert contents(empty) == {"sub/b.txt": "two", "failed": "written before"}
    log = empty.log()
    assert [version.version for version in log] == list(range(len(log), 0, -1))
    assert all(version.what == "at the end of an input" and "voluminous on" in version.by for version in log)
    assert empty.restore(1) == len(log) + 1
    assert contents(empty) == {"a.txt": "one"}


def test_commit_and_reload_while_a_function_runs(empty):
    with sample.app.run(), Queue.ephemeral() as inbox, Queue.ephemeral() as outbox:
        running = sample.commit_and_wait.spawn(inbox, outbox)
        assert outbox.get(timeout=60) == "committed"
        assert contents(empty) == {"early": "1"}
        with empty.batch_upload() as batch:
            batch.put_file(io.BytesIO(b"2"), "/late")
        inbox.put(None)
        assert running.get(timeout=60) == ["early", "|", "early", "late"]


def test_mount_options(empty):
    with sample.app.run():
        sample.write.remote("a.txt", "one")
        assert sample.look.remote() == ["OSError", "a.txt"]
        assert sample.in_sub.remote("deep") == ["inner"]
    assert contents(empty) == {"a.txt": "one", "sub/deep/inner": "deep"}


def test_what_cannot_travel_stays_behind(empty, capfd):
    with sample.app.run():
        assert len(sample.misbehave.remote()) == 5
    assert contents(empty) == {"plain": "1", "setuid": "1"}


def test_without_a_mount_there_is_nothing_to_commit_but_all_to_read(empty):
    with sample.app.run():
        sample.write.remote("a.txt", "one")
        assert sample.without.remote() == ["InvalidError", "a.txt"]
    with pytest.raises(InvalidError, match="for functions that mount"):
        empty.commit()


def test_files_are_put_and_fetched_by_programs(empty, tmp_path):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/large").write_bytes(os.urandom(9 << 20))
    (folder / "run.sh").write_text("#!/bin/sh")
    (folder / "run.sh").chmod(0o755)
    with empty.batch_upload() as batch:
        batch.put_directory(folder, "/in")
        batch.put_file(folder / "run.sh", "again/")
    assert {entry.path for entry in empty.listdir("/", recursive=True)} == {
        "again", "again/run.sh", "in", "in/run.sh", "in/sub", "in/sub/large",
    }  # fmt: skip
    with (tmp_path / "back").open("wb") as file:
        assert empty.read_file_into_fileobj("in/sub/large", file) == 9 << 20
    assert (tmp_path / "back").read_bytes() == (folder / "sub/large").read_bytes()
    with pytest.raises(AlreadyExistsError), empty.batch_upload() as batch:
        batch.put_file(folder / "run.sh", "again/run.sh")
    empty.copy_files(["in/run.sh"], "copied")
    empty.remove_file("in", recursive=True)
    assert {entry.path for entry in empty.listdir("/")} == {"again", "copied"}
    with pytest.raises(NotFoundError):
        next(iter(empty.read_file("missing")))
    assert [version.what for version in empty.log()] == ["removed", "copied", "put"]


def test_twins_for_asyncio(empty):
    async def main():
        async with empty.batch_upload() as batch:
            batch.put_file(io.BytesIO(b"1"), "a")
        assert [entry.path for entry in await empty.listdir.aio("/")] == ["a"]
        assert b"".join([piece async for piece in empty.read_file.aio("a")]) == b"1"

    asyncio.run(main())


def test_a_sandbox_writes_to_a_volume(empty):
    lookup = potluck.App.lookup("boxes", create_if_missing=True)
    box = potluck.Sandbox.create("sh", "-c", "echo 1 >/data/in", app=lookup, volumes={"/data": empty}, timeout=60)
    box.wait()
    assert contents(empty) == {"in": "1\n"}


def test_what_was_acknowledged_survives_a_kill(tmp_path, use):
    mesh = Mesh(tmp_path)
    try:
        caller = use(mesh.caller("cas"))
        for turn in range(3):
            volume = Volume.from_name("kept", create_if_missing=True)
            with volume.batch_upload() as batch:
                batch.put_file(io.BytesIO(os.urandom(100_000).hex().encode()), f"file-{turn}")
            caller.kill()
            caller.start()
        files = contents(Volume.from_name("kept"))
        assert {name: len(text) for name, text in files.items()} == {f"file-{turn}": 200_000 for turn in range(3)}
    finally:
        mesh.stop()


def test_names(trusting, use):
    use(trusting.nodes[0])
    with Volume.ephemeral() as unnamed:
        with unnamed.batch_upload() as batch:
            batch.put_file(io.BytesIO(b"1"), "a")
        assert contents(unnamed) == {"a": "1"}
    with pytest.raises(NotFoundError):
        unnamed.listdir("/")
    Volume.objects.create("old")
    Volume.rename("old", "new")
    assert "new" in [volume.name for volume in Volume.objects.list()]
    Volume.objects.delete("new")
    with pytest.raises(NotFoundError):
        Volume.from_name("new").hydrate()


def test_peers_that_are_not_trusted_run_no_function_with_a_volume(tmp_path, use):
    mesh = Mesh(tmp_path)
    try:
        caller = use(mesh.caller("cas"))
        mesh.provider("ann")
        wait_until(lambda: len(caller.status().peers) == 1, "finding the provider")
        sample.shared._object_id, sample.shared._facts = "", None
        app = potluck.App("untrusting")
        reader = app.function(volumes={"/data": sample.shared}, timeout=20)(sample.read.get_raw_f())
        with app.run(), pytest.raises(NoPeerError, match="volumes"):
            reader.remote()
    finally:
        mesh.stop()


@pytest.mark.skipif(shutil.which("runsc") is None, reason="runsc is not installed")
def test_in_the_strict_tier(empty):
    with empty.batch_upload() as batch:
        for name in ("old", "gone", "moved"):
            batch.put_file(io.BytesIO(name.encode()), name)
    after = {"old": "old+", "sub/new": "new", "sub/moved": "moved"}
    with sample.app.run():
        assert dict(line.split("=") for line in sample.strictly.remote()) == after
        assert contents(empty) == after
        assert sample.look_strictly.remote()[1:] == ["old", "sub"]
