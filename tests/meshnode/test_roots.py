"""Roots that can be written to, and the images that are made of them."""

from contextlib import asynccontextmanager

import pytest
import trio
from tests.meshnode.clocks import HandClock
from tests.meshnode.test_volumes import World

from potluck import wire
from potluck.errors import InvalidError, ResourceExceededError, SandboxError
from potluck.wire import FunctionSpec
from potluck.wire.volumes import RootSnapshot, SnapshotRoot
from potluck.wire.worker import MountAsked
from potluck_images.config import ImageConfig
from potluck_images.image import put_config
from potluck_images.pack import pack
from potluck_images.tree import Text, Tree
from potluck_node import roots as roots_module
from potluck_node.core import provider_events as ev
from potluck_node.pool_volumes import PoolVolumes
from potluck_node.roots import Roots
from potluck_node.sandbox import overlay
from potluck_node.snapshots import Snapshots

MIB = 1 << 20


class Node(World):
    def __init__(self, folder, place):
        super().__init__(folder, place)
        tree = Tree()
        tree.put("etc/base", Text(b"base"))
        config = ImageConfig((pack(tree, self.images.store),), python="/usr/bin/python3", python_version="3.11.2")
        self.image = put_config(self.images.store, config)
        self.roots, self.broken = Roots(folder, self.images, MIB), []

    @asynccontextmanager
    async def opened(self):
        async with self.roots.open(
            FunctionSpec("app", "f", self.image, "3.11", writable=True), self.broken.append
        ) as root:
            yield root


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path / "node", tmp_path / "state.sqlite")


async def test_a_snapshot_is_one_layer_more(node):
    async with node.opened() as root:
        assert (root.tree / "etc/base").read_text() == "base"
        (overlay.upper(root.place) / "new").write_text("new")
        image = await root.snapshot(lambda text: None)
        shown = await node.images.keeper.tree(image)
        assert ((shown / "new").read_text(), (shown / "etc/base").read_text()) == ("new", "base")
    assert not root.place.exists()


async def test_too_much_ends_the_worker(node):
    async with node.opened() as root:
        (overlay.upper(root.place) / "large").write_bytes(bytes(2 * MIB))
        with trio.fail_after(10):
            while not node.broken:
                await trio.sleep(0.01)
    assert isinstance(node.broken[0], ResourceExceededError)


async def test_no_overlay_is_said_and_tried_once(node, monkeypatch):
    tried = []
    monkeypatch.setattr(roots_module.overlay, "trial", lambda folder: tried.append(folder) or "not permitted")
    for _ in range(2):
        with pytest.raises(SandboxError, match="cannot be written to"):
            async with node.opened():
                pass
    assert len(tried) == 1


def pool_volumes(node, told):
    spec = FunctionSpec("app", "f", node.image, "3.11", writable=True)
    action = ev.PreparePool("p", "caller", spec, 1)
    return PoolVolumes(
        action, lambda event: None, lambda worker, text: None, lambda worker, answer: told.append(answer)
    )


async def test_a_worker_asks_for_a_snapshot(node):
    told = []
    volumes = pool_volumes(node, told)
    volumes.open_root = node.roots.open
    asked = MountAsked(7, wire.encode(SnapshotRoot()))
    assert volumes.ask("w", asked).kind == "invalid"
    async with volumes.of("w") as written:
        assert written.root
        assert volumes.ask("w", asked) is None
        with trio.fail_after(10):
            while not told:
                await trio.sleep(0.01)
    assert told[0].number == 7
    assert len(wire.decode(told[0].payload, RootSnapshot).image) == 64


async def test_where_roots_cannot_be_written_to_the_worker_runs_all_the_same(node, monkeypatch):
    monkeypatch.setattr(roots_module.overlay, "trial", lambda folder: "not permitted")
    volumes = pool_volumes(node, [])
    volumes.open_root = node.roots.open
    async with volumes.of("w") as written:
        assert written.root is None
        assert "only be read" in volumes.ask("w", MountAsked(7, wire.encode(SnapshotRoot()))).why


async def test_snapshots_are_kept_for_their_time(node):
    clock = HandClock()
    snapshots = Snapshots(node.images, clock)
    with pytest.raises(InvalidError):
        await snapshots.keep(node.image, "peer", -1)
    await snapshots.keep(node.image, "peer", 1_000_000)
    other = put_config(node.images.store, ImageConfig(()))
    await snapshots.keep(other, "peer", 0)
    pinned = lambda: {image for image, _ in node.images.keeper.shelf.pins()}  # noqa: E731
    snapshots._tidy()
    assert pinned() == {node.image, other}
    clock.advance(2_000_000)
    snapshots._tidy()
    assert pinned() == {other}
