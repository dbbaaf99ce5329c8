"""Functions that start from an image which is not there yet, on real nodes and in real sandboxes."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.e2e import sample
from tests.e2e.mesh import Mesh, wait_until
from tests.image_store.lazy_mounts import mounts, needs_fuse

import potluck
from potluck.errors import FunctionTimeoutError
from potluck_images.disk import DiskStore
from potluck_images.image import get_config, get_manifests
from potluck_images.lazy_pull import STUCK_US_MAX

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
    assert store_bytes(ann) < store_bytes(caller) * 3 / 4


def reader(data: Path, timeout_s: float = 300):
    """A function whose image has `data` as /data/file."""
    app = potluck.App("lazy")
    image = potluck.Image.local_python().add_local_file(str(data), "/data/file")

    @app.function(image=image, serialized=True, timeout=timeout_s)
    def read(path: str) -> bytes:
        from pathlib import Path

        return Path(path).read_bytes()

    return app, read


def forget(node, path: str) -> None:
    """Take the chunks of a file from the only image of a node."""
    (image,) = [note.name for note in (node.home / "images").iterdir()]
    store = DiskStore(node.home / "store")
    try:
        for layer in get_manifests(get_config(store, image), store.get):
            files = [entry for entry in layer.entries if entry.path == path]
            store.discard([layer.chunks[piece.chunk].digest for entry in files for piece in entry.pieces])
    finally:
        store.close()


def test_a_chunk_that_nobody_has_is_an_error_in_the_function(lazy_mesh, use_node, tmp_path):
    caller, _ann = pair(lazy_mesh)
    use_node(caller)
    data = tmp_path / "data"
    data.write_bytes(os.urandom(200_000))
    app, read = reader(data)
    with app.run(show_progress=False):
        assert read.remote("/proc/self/stat")
        forget(caller, "data/file")
        with pytest.raises(OSError, match="Input/output"):
            read.remote("/data/file")
        assert read.remote("/proc/self/stat")


def test_a_function_that_waits_for_a_chunk_can_be_ended(lazy_mesh, use_node, tmp_path):
    """At once, and not when the chunk is given up."""
    caller, ann = pair(lazy_mesh)
    use_node(caller)
    data = tmp_path / "data"
    data.write_bytes(os.urandom(200_000))
    app, read = reader(data, timeout_s=2)
    with app.run(show_progress=False):
        assert read.remote("/proc/self/stat")
        forget(caller, "data/file")
        begun = time.monotonic()
        with pytest.raises(FunctionTimeoutError):
            read.remote("/data/file")
        assert time.monotonic() - begun < STUCK_US_MAX / 1e6
    wait_until(lambda: not ann.status().workers, "the end of the worker")


def test_a_killed_mount_process_costs_one_pool_and_the_call_runs_again(lazy_mesh, use_node):
    caller, ann = pair(lazy_mesh)
    use_node(caller)
    with sample.app.run(show_progress=False), ThreadPoolExecutor(1) as threads:
        call = threads.submit(sample.sleep.remote, 3.0)
        wait_until(lambda: any(worker.state == "running" for worker in ann.status().workers), "ann at work")
        first = mount_process(ann)
        os.kill(first, signal.SIGKILL)
        assert call.result(60) == 3
        assert mount_process(ann) != first


def test_a_killed_node_takes_its_mounts_along(lazy_mesh, use_node):
    caller, ann = pair(lazy_mesh)
    use_node(caller)
    with sample.app.run(show_progress=False):
        assert sample.add.remote(1, 2) == 3
        pid = mount_process(ann)
        ann.kill()
        wait_until(lambda: not mounts(ann.home), "unmounting")
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the end of the mount process")
