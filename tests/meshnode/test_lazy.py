"""Mounted images on a node: fetched from peers as they are read, ahead of time where a profile is known, never hung."""

import os
import random
import signal
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest
import trio
from tests.image_store.helpers import image_of, listing
from tests.image_store.lazy_mounts import mounts, needs_fuse
from tests.meshnode.clocks import TrioClock

from potluck.errors import SandboxError
from potluck.wire.offer import Offer
from potluck_images import lazy_pull
from potluck_images.disk import DiskStore
from potluck_images.image import get_config, get_manifests
from potluck_images.materialise import materialise
from potluck_images.pull import missing_chunks
from potluck_node import lazy_profile
from potluck_node.chunks import CHUNKS_PROTOCOL
from potluck_node.core.offers import OfferBook
from potluck_node.fetch import Caps, Fetcher
from potluck_node.lazy import LazyImages
from potluck_node.lazy_profile import Profiles
from potluck_node.transport.memory import MemoryNetwork, MemoryTransport

FILES = {f"lib/file{number}": random.Random(number).randbytes(300_000) for number in range(6)}


class Node:
    """A transport with a store, a fetcher and mounts; notes the chunks that it sends."""

    def __init__(self, network, folder, name):
        self.name, self.sent, self.home = name, [], folder / name
        self.transport = MemoryTransport(network, name, lambda key, value: 0)
        self.store = DiskStore(self.home / "store")
        self.book = OfferBook("local", name)
        self.fetcher = Fetcher(self.transport, self.store, self.book, TrioClock(), Caps())
        self.lazy = LazyImages(self.home, self.fetcher, self.store, "always")
        self.transport.handle(CHUNKS_PROTOCOL, self.fetcher.serve)
        get_frame = self.store.get_frame

        def counted(digest):
            frame = get_frame(digest)
            self.sent.append(digest)
            return frame

        self.store.get_frame = counted

    @asynccontextmanager
    async def mounted(self, image, caller, function="app/f"):
        root = await self.lazy.open(image, caller.name, function)
        assert root
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(root.serve)
                yield root
                nursery.cancel_scope.cancel()
        finally:
            await root.aclose()


@pytest.fixture
async def nodes(tmp_path):
    """Nodes that know each other, and in the end no mount."""
    network = MemoryNetwork()
    made = [Node(network, tmp_path, name) for name in ("caller", "ann", "bob")]
    async with trio.open_nursery() as nursery:
        for node in made:
            await nursery.start(node.transport.serve)
        for node in made:
            for other in made:
                if node is not other:
                    await node.transport.connect(f"/memory/p2p/{other.name}")
        yield made
        nursery.cancel_scope.cancel()
    assert not mounts(tmp_path)


def chunks_of(store, image, *paths):
    (layer,) = get_manifests(get_config(store, image), store.get)
    entries = [entry for entry in layer.entries if entry.path in paths]
    return [layer.chunks[piece.chunk].digest for entry in entries for piece in entry.pieces]


async def read(root, path):
    return await trio.to_thread.run_sync((root.path / path).read_bytes)


@needs_fuse
async def test_only_what_is_read_moves_and_it_is_the_images_own_bytes(nodes, tmp_path):
    caller, ann, *_ = nodes
    image = image_of(caller.store, FILES)
    async with ann.mounted(image, caller) as root:
        assert await read(root, "lib/file3") == FILES["lib/file3"]
        assert image in ann.fetcher.partial
        data = set(chunks_of(caller.store, image, *FILES))
        assert data & set(caller.sent) == set(chunks_of(caller.store, image, "lib/file3"))
        seen = await trio.to_thread.run_sync(listing, root.path)
    assert not missing_chunks(ann.store, image)
    assert len(caller.sent) == len(set(caller.sent))
    with materialise(ann.store, image, tmp_path / "trees") as tree:
        assert seen == listing(tree)
    assert image not in ann.fetcher.partial


@needs_fuse
async def test_a_second_cold_node_fetches_ahead_what_the_first_has_read(nodes):
    caller, ann, bob, *_ = nodes
    image = image_of(caller.store, FILES)
    async with ann.mounted(image, caller) as root:
        for path in ("lib/file4", "lib/file1"):
            await read(root, path)
    wanted = chunks_of(caller.store, image, "lib/file4") + chunks_of(caller.store, image, "lib/file1")
    assert ann.lazy.profiles.read(image, "app/f") == wanted
    bob.book.offers["ann"] = Offer("ann", "ann", "local", 1, 0, 1 << 62)
    async with bob.mounted(image, caller):
        with trio.fail_after(20):
            while bob.store.missing(wanted):
                await trio.sleep(0.01)
        others = chunks_of(caller.store, image, "lib/file0")
        assert bob.store.missing(others) == others
    assert not bob.lazy.profiles.read(image, "app/f")  # nothing was read
    assert not bob.lazy.profiles.read(image, "app/other")


@needs_fuse
async def test_a_chunk_that_nobody_has_fails_the_read_and_no_other(nodes, monkeypatch):
    monkeypatch.setattr(lazy_pull, "STUCK_US_MAX", 1_000_000)
    caller, ann, *_ = nodes
    image = image_of(caller.store, FILES)
    caller.store.discard(chunks_of(caller.store, image, "lib/file2")[:1])
    async with ann.mounted(image, caller) as root:
        with trio.fail_after(20), pytest.raises(OSError, match="Input/output"):
            await read(root, "lib/file2")
        assert await read(root, "lib/file5") == FILES["lib/file5"]


@needs_fuse
async def test_a_killed_mount_process_is_an_error_with_a_reason_and_leaves_nothing(nodes, tmp_path):
    caller, ann, *_ = nodes
    image = image_of(caller.store, FILES)
    with pytest.raises(ExceptionGroup) as caught:
        async with ann.mounted(image, caller) as root:
            os.kill(root._process.pid, signal.SIGKILL)
            with trio.fail_after(20):
                await trio.sleep_forever()
    assert caught.group_contains(SandboxError, match="lost its image")
    assert not mounts(tmp_path)
    assert not root.path.exists()


@needs_fuse
async def test_what_a_dead_node_left_is_removed_at_the_next_start(nodes):
    caller, ann, *_ = nodes
    image = image_of(caller.store, FILES)
    root = await ann.lazy.open(image, caller.name, "app/f")
    try:
        assert mounts(root.path)
        ann.lazy._folder.joinpath("old").mkdir()
        LazyImages(ann.home, ann.fetcher, ann.store, "never")
        assert not mounts(root.path)
        assert not list(ann.lazy._folder.iterdir())
    finally:
        await root.aclose()


def test_profiles_grow_survive_a_new_image_and_are_bounded(tmp_path, monkeypatch):
    store = DiskStore(tmp_path / "store")
    profiles = Profiles(tmp_path, store)
    names = [bytes([number]) * 32 for number in range(9)]
    assert profiles.read("image", "app/f") == []
    profiles.add("image", "app/f", names[:3])
    profiles.add("image", "app/f", [names[5], names[1]])
    assert profiles.read("image", "app/f") == [names[5], names[1], names[0], names[2]]
    assert profiles.read("edited", "app/f") == profiles.read("image", "app/f")
    assert profiles.read("image", "app/g") == []
    assert Profiles(tmp_path, store).named("image", "app/f") == profiles.named("image", "app/f") != b""
    store.discard([profiles.named("image", "app/f")])  # evicted
    assert profiles.read("image", "app/f") == []
    monkeypatch.setattr(lazy_profile, "PROFILES_MAX", 4)
    for number in range(9):
        profiles.add(f"image{number}", "app/h", names)
    assert len(list((tmp_path / "profiles").iterdir())) == 4
    assert profiles.read("image8", "app/h") == names
    store.close()


async def test_where_nothing_can_be_mounted_the_whole_image_is_fetched(nodes, caplog):
    caller, ann, bob = nodes
    image = image_of(caller.store, FILES)
    ann.lazy.off = "no /dev/fuse"
    with caplog.at_level("INFO"):
        assert await ann.lazy.open(image, caller.name, "app/f") is None
    assert "all of image" in caplog.text
    assert "no /dev/fuse" in caplog.text
    bob.lazy.off = ""
    (bob.home / "lazy").write_text("in the way of the mount point")
    assert await bob.lazy.open(image, caller.name, "app/f") is None
    assert "mounting failed" in caplog.text
    assert bob.lazy.off


async def test_what_lacks_little_is_fetched_as_a_whole(nodes):
    caller, ann, bob = nodes
    image = image_of(caller.store, FILES)
    small = LazyImages(ann.home, ann.fetcher, ann.store, "auto")
    small.off = ""
    assert await small.open(image, caller.name, "app/f") is None
    never = LazyImages(bob.home, bob.fetcher, bob.store, "never")
    assert "lazy" in never.off


def test_a_node_works_without_the_package_that_mounts():
    program = """
import sys
sys.modules["pyfuse3"] = None
import potluck_node.main, potluck_node.node
from potluck_images.lazy_support import why_not
print(why_not())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "apt install libfuse3-dev" in done.stdout
