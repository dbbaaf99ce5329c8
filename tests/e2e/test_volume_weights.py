"""Large weights in a volume: read as far as they are needed, kept where they were read, and never beyond a limit."""

import io
import os

import pytest
from tests.e2e.mesh import Mesh, wait_until
from tests.image_store.lazy_mounts import mounts, needs_fuse

import potluck
from potluck import calls
from potluck.errors import ResourceExceededError

app = potluck.App("weights")
weights = potluck.Volume.from_name("weights", create_if_missing=True)
SIZE = 24 << 20


@app.function(volumes={"/weights": weights.read_only()}, timeout=60, single_use_containers=True, serialized=True)
def first_byte(offset: int) -> int:
    with open("/weights/model", "rb") as file:
        file.seek(offset)
        return file.read(1)[0]


@app.function(volumes={"/weights": weights}, timeout=60, serialized=True)
def fill(size: int) -> str:
    import time

    with open("/weights/large", "wb") as file:
        while file.tell() < size:
            file.write(bytes(1 << 20))
            time.sleep(0.01)
    return "written"


@pytest.fixture
def mesh(tmp_path, monkeypatch):
    monkeypatch.setattr(calls, "_connection", None)
    for handle in (weights, first_byte._options.volumes[0][1], fill._options.volumes[0][1]):
        # Found on another test's node.
        handle._object_id, handle._facts = "", None
    made = Mesh(tmp_path)
    try:
        yield made
    finally:
        if calls._connection:
            calls._connection.close()
        made.stop()
    assert not mounts(tmp_path)


def stored(node):
    return sum(path.stat().st_size for path in (node.home / "store/packs").iterdir())


@needs_fuse
def test_only_what_is_read_is_fetched_and_only_once(mesh, use_node):
    caller = use_node(mesh.caller("cas", "--trust", "mesh"))
    ann = mesh.provider("ann", "--lazy", "always")
    wait_until(lambda: len(caller.status().peers) == 1, "finding the provider")
    content = os.urandom(SIZE)
    with weights.batch_upload() as batch:
        batch.put_file(io.BytesIO(content), "model")
    with app.run():
        assert first_byte.remote(0) == content[0]
        image = stored(ann)
        assert first_byte.remote(SIZE // 2) == content[SIZE // 2]
        once = stored(ann)
        # A few chunks around it, not the whole file.
        assert once - image < SIZE // 2
        assert first_byte.remote(SIZE // 2) == content[SIZE // 2]
        assert stored(ann) - once < SIZE // 8


def test_one_who_fills_the_disk_is_ended(mesh, use_node):
    caller = use_node(mesh.caller("cas", "--trust", "mesh"))
    (mesh.folder / "ann").mkdir(mode=0o711)
    (mesh.folder / "ann/config.toml").write_text("volume_gib = 0.03\n")
    mesh.provider("ann")
    wait_until(lambda: len(caller.status().peers) == 1, "finding the provider")
    with app.run():
        assert fill.remote(1 << 20) == "written"
        with pytest.raises(ResourceExceededError, match="volume"):
            fill.remote(2 << 30)
