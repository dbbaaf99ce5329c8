"""Functions that start from an image which is not there yet, on real nodes and in real sandboxes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e import sample
from tests.e2e.mesh import Mesh, wait_until
from tests.image_store.lazy_mounts import mounts, needs_fuse

pytestmark = needs_fuse


@pytest.fixture
def lazy_mesh(tmp_path):
    """Stops all nodes, also those of a test that failed, and then no mount may be left."""
    made = Mesh(tmp_path)
    try:
        yield made
    finally:
        made.stop()
    assert not mounts(tmp_path)


def pair(mesh):
    caller, ann = mesh.caller(), mesh.provider("ann", "--lazy", "always", "--idle-s", "5")
    wait_until(lambda: caller.status().peers, "finding the provider")
    return caller, ann


def store_bytes(node):
    return sum(path.stat().st_size for path in (node.home / "store" / "packs").iterdir())


def mount_process(node) -> int:
    """The pid of the only mount process of a node."""
    (found,) = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and f"lazy_mount\0{node.home}/store".encode() in _command(entry)
    ]
    return found


def _command(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


def test_a_function_starts_from_a_mount_and_little_moves(lazy_mesh, use_node):
    caller, ann = pair(lazy_mesh)
    use_node(caller)
    with sample.app.run():
        assert sample.add.remote(1, 2) == 3
        assert mounts(ann.home)
    assert store_bytes(ann) < store_bytes(caller) / 2
