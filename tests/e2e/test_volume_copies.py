"""Copies of volumes on other peers: made, made again when a peer dies, and taken back from."""

import io
import json
import os
import shutil

import pytest
from tests.e2e.mesh import Mesh, run_cli, wait_until

from potluck import Volume, calls
from potluck_ledger.volume_heads import read_head


@pytest.fixture
def use(use_node, monkeypatch):
    monkeypatch.setattr(calls, "_connection", None)

    def reconnect(node):
        if calls._connection:
            calls._connection.close()
        monkeypatch.setattr(calls, "_connection", None)
        return use_node(node)

    yield reconnect
    if calls._connection:
        calls._connection.close()


def heads_at(node, owner):
    """What a node keeps for another: volume → head."""
    paths = (node.home / "volumes/kept" / owner).glob("*.head")
    return [read_head(path.read_bytes())[0] for path in paths]


def test_copies_are_kept_and_brought_back(tmp_path, use):
    mesh = Mesh(tmp_path)
    try:
        caller = use(mesh.caller("cas", "--trust", "mesh"))
        peers = {name: mesh.provider(name, "--trust", "mesh") for name in ("ann", "bob")}
        wait_until(lambda: len(caller.status().peers) == 2, "finding the peers")
        owner = caller.status().peer
        volume, content = Volume.from_name("weights", create_if_missing=True), os.urandom(3 << 20)
        with volume.batch_upload() as batch:
            batch.put_file(io.BytesIO(content), "model")
        wait_until(lambda: volume.copies().copies == 2, "making both copies")
        assert [head.version for node in peers.values() for head in heads_at(node, owner)] == [1, 1]
        listed = json.loads(run_cli(caller, "volume", "list", "--json").stdout)
        assert [(each["name"], each["copies"], each["wanted"]) for each in listed] == [("weights", 2, 2)]

        # One dies; another one comes.
        peers["ann"].kill()
        wait_until(lambda: volume.copies().copies == 1, "noticing that one is gone")
        assert "1 of 2 copies" in run_cli(caller, "volume", "list").stdout
        peers["eve"] = mesh.provider("eve", "--trust", "mesh")
        wait_until(lambda: volume.copies().copies == 2, "making the copy anew")
        assert [head.version for head in heads_at(peers["eve"], owner)] == [1]

        # The owner loses its store.
        caller.stop()
        shutil.rmtree(caller.home / "store")
        caller.flags = (*caller.flags, "--bootstrap", peers["bob"].address)
        use(caller.start())
        volume = Volume.from_name("weights")
        wait_until(lambda: volume.copies().copies == 2, "hearing of the copies")
        assert b"".join(volume.read_file("model")) == content

        # Then everything but its key.
        caller.stop()
        for path in caller.home.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "node.key":
                path.unlink()
        use(caller.start())
        wait_until(lambda: "weights is back" in run_cli(caller, "volume", "recover").stdout, "recovering the volume")
        volume = Volume.from_name("weights")
        assert b"".join(volume.read_file("model")) == content
        assert "No peer" in run_cli(caller, "volume", "recover").stdout
        with volume.batch_upload() as batch:
            batch.put_file(io.BytesIO(b"2"), "more")
        wait_until(lambda: volume.copies() == (2, 2, 2), "copying what came since")

        Volume.objects.delete("weights")
        wait_until(lambda: not heads_at(peers["bob"], owner), "forgetting what was deleted")
    finally:
        mesh.stop()


def test_nothing_is_kept_for_whom_nobody_trusts(tmp_path, use):
    mesh = Mesh(tmp_path)
    try:
        caller = use(mesh.caller("cas", "--trust", "mesh"))
        ann = mesh.provider("ann")
        wait_until(lambda: len(caller.status().peers) == 1, "finding the peer")
        volume = Volume.from_name("weights", create_if_missing=True)
        with volume.batch_upload() as batch:
            batch.put_file(io.BytesIO(b"1"), "model")
        wait_until(lambda: "keeps no copies of your volumes" in caller.log.read_text(), "being refused")
        assert volume.copies() == (1, 0, 2)
        assert not (ann.home / "volumes/kept").exists()
    finally:
        mesh.stop()
