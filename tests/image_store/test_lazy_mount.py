"""A mounted image reads like a materialised one, fetches what is read only, and leaves no dead mount behind."""

import errno
import os
import random
import threading
import time

import pytest
from tests.image_store.helpers import image_of, listing
from tests.image_store.lazy_mounts import PATIENCE_S, Mount, mounted, mounts, needs_fuse

from potluck_images.disk import DiskStore
from potluck_images.image import get_config, get_manifests
from potluck_images.lazy_wire import Have, Lost, MountFailed, Need, Touched
from potluck_images.materialise import materialise
from potluck_images.memory import MemoryStore

pytestmark = needs_fuse

BIG = random.Random(1).randbytes(1 << 20)
FILES = {
    "app/big": BIG,
    "app/small": b"hello",
    "app/empty": b"",
    "app/link": "small",
    "lib/other": random.Random(2).randbytes(300_000),
}


def only_manifests(image, whole, folder):
    """A store on disk that has of `image` what a mount needs to start."""
    store = DiskStore(folder)
    store.put(whole.get_frame(bytes.fromhex(image)))
    for layer in get_config(whole, image).layers:
        for digest in layer.chunks:
            store.put(whole.get_frame(digest))
    return store


class Node:
    """Answers what a mount asks, from another store, and notes it."""

    def __init__(self, mount, store, whole, lacks=()):
        self.mount, self.store, self.whole, self.lacks = mount, store, whole, lacks
        self.needed, self.touched = [], []
        self.thread = threading.Thread(target=self._answer, daemon=True)
        self.thread.start()

    def _answer(self):
        while True:
            try:
                message = self.mount.receive()
            except (OSError, AssertionError):
                return
            if isinstance(message, Touched):
                self.touched += message.digests
            elif isinstance(message, Need):
                self._fetch(message.digests)

    def _fetch(self, digests):
        self.needed += digests
        for digest in digests:
            if digest in self.lacks:
                self.mount.send(Lost((digest,)))
            else:
                self.store.put(self.whole.get_frame(digest))
                self.mount.send(Have((digest,)))


def chunks_of(image, store, path):
    (layer,) = get_manifests(get_config(store, image), store.get)
    (entry,) = [entry for entry in layer.entries if entry.path == path]
    return [layer.chunks[piece.chunk].digest for piece in entry.pieces]


@pytest.fixture
def whole():
    return MemoryStore()


@pytest.fixture
def image(whole):
    return image_of(whole, FILES)


def test_it_reads_like_the_materialised_image(tmp_path, whole, image):
    store = only_manifests(image, whole, tmp_path / "store")
    with mounted(tmp_path / "store", image, tmp_path / "root") as mount:
        Node(mount, store, whole)
        seen = listing(mount.root)
        modes = {path: (mount.root / path).lstat() for path in seen}
        with materialise(store, image, tmp_path / "trees") as tree:
            assert seen == listing(tree)
            for path, mode in modes.items():
                real = (tree / path).lstat()
                assert (mode.st_mode, mode.st_mtime) == (real.st_mode, real.st_mtime), path
        with pytest.raises(OSError, match="Read-only"):
            (mount.root / "app" / "new").write_text("x")
    assert not mounts(tmp_path)


def test_only_what_is_read_is_fetched_and_told_in_order(tmp_path, whole, image):
    store = only_manifests(image, whole, tmp_path / "store")
    big, other = chunks_of(image, whole, "app/big"), chunks_of(image, whole, "lib/other")
    with mounted(tmp_path / "store", image, tmp_path / "root") as mount:
        node = Node(mount, store, whole)
        assert (mount.root / "lib" / "other").read_bytes() == FILES["lib/other"]
        assert set(node.needed) == set(other)
        with (mount.root / "app" / "big").open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            assert os.pread(file.fileno(), 100, 900_000) == BIG[900_000:900_100]
        assert len(set(node.needed) & set(big)) == 1
        assert len(node.needed) == len(set(node.needed))
        deadline = time.monotonic() + PATIENCE_S
        while len(node.touched) < len(node.needed) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert node.touched == node.needed


def test_a_chunk_that_nobody_has_is_an_error_and_others_go_on(tmp_path, whole, image):
    store = only_manifests(image, whole, tmp_path / "store")
    lacks = chunks_of(image, whole, "lib/other")[:1]
    with mounted(tmp_path / "store", image, tmp_path / "root") as mount:
        node = Node(mount, store, whole, lacks)
        with pytest.raises(OSError, match="Input/output") as caught:
            (mount.root / "lib" / "other").read_bytes()
        assert caught.value.errno == errno.EIO
        assert (mount.root / "app" / "big").read_bytes() == BIG
        node.lacks = ()
        assert (mount.root / "lib" / "other").read_bytes() == FILES["lib/other"]


def test_many_readers_of_one_chunk_ask_once(tmp_path, whole, image):
    store = only_manifests(image, whole, tmp_path / "store")
    with mounted(tmp_path / "store", image, tmp_path / "root") as mount:
        node = Node(mount, store, whole)
        seen = []
        threads = [
            threading.Thread(target=lambda: seen.append((mount.root / "app" / "big").read_bytes())) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert seen == [BIG] * 8
        assert sorted(node.needed) == sorted(set(chunks_of(image, whole, "app/big")))


def test_it_ends_with_its_socket_even_while_read(tmp_path, whole, image):
    """As when the node is killed: the reader gets an error, and no mount stays."""
    only_manifests(image, whole, tmp_path / "store")
    failed = []
    with mounted(tmp_path / "store", image, tmp_path / "root") as mount:

        def read():
            try:
                (mount.root / "app" / "big").read_bytes()
            except OSError as error:
                failed.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        assert isinstance(mount.receive(), Need)
        mount.hang_up()
        reader.join(PATIENCE_S)
        assert failed
        assert mount.process.wait(PATIENCE_S) == 0
        assert not mounts(tmp_path)


def test_a_killed_mount_fails_reads_at_once(tmp_path, whole, image):
    only_manifests(image, whole, tmp_path / "store")
    with mounted(tmp_path / "store", image, tmp_path / "root") as mount:
        mount.process.kill()
        mount.process.wait()
        with pytest.raises(OSError, match="not connected"):
            (mount.root / "app" / "small").read_bytes()
        assert mount.socket.recv(1) == b""
    assert not mounts(tmp_path)


def test_what_cannot_be_mounted_is_told(tmp_path, whole, image):
    only_manifests(image, whole, tmp_path / "store")
    mount = Mount(tmp_path / "store", "00" * 32, tmp_path / "root")
    try:
        answer = mount.receive()
        assert isinstance(answer, MountFailed)
        assert "lacks chunk" in answer.why
        assert mount.process.wait(PATIENCE_S) == 1
    finally:
        mount.process.kill()
        mount.process.wait()
        mount.hang_up()
    assert not mounts(tmp_path)
