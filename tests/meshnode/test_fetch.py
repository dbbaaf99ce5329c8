"""Fetching images: found through the DHT, shared chunks once, within the owner's caps, in parts."""

import random

import pytest
import trio
from tests.meshnode.clocks import TrioClock

from potluck_images.config import ImageConfig
from potluck_images.disk import DiskStore
from potluck_images.errors import ImageError
from potluck_images.image import put_config
from potluck_images.pack import pack
from potluck_images.tree import Text, Tree
from potluck_node.chunks import CHUNKS_PROTOCOL
from potluck_node.core.offers import OfferBook
from potluck_node.core.rate import BURST_US, TokenBucket
from potluck_node.fetch import Caps, Fetcher, image_key
from potluck_node.transport.memory import MemoryNetwork, MemoryTransport


def layer(store, seed, size=2 << 20):
    tree = Tree()
    tree.put(f"data/{seed}", Text(random.Random(seed).randbytes(size)))
    return pack(tree, store)


class Node:
    """A transport with a store and a fetcher; counts the chunks that it sends."""

    def __init__(self, network, folder, name, **caps):
        self.name, self.sent = name, []
        self.transport = MemoryTransport(network, name, lambda key, value: 0)
        self.store = DiskStore(folder / name)
        self.fetcher = Fetcher(self.transport, self.store, OfferBook("local", name), TrioClock(), Caps(**caps))
        self.transport.handle(CHUNKS_PROTOCOL, self.fetcher.serve)
        get_frame = self.store.get_frame

        def counted(digest):
            frame = get_frame(digest)
            self.sent.append(digest)
            return frame

        self.store.get_frame = counted

    async def fetch(self, image, caller):
        await self.fetcher.fetch(image, caller.name, lambda progress: None)


async def start(nursery, *nodes):
    for node in nodes:
        await nursery.start(node.transport.serve)
    for node in nodes:
        for other in nodes:
            if node is not other:
                await node.transport.connect(f"/memory/p2p/{other.name}")


async def test_a_holder_that_only_the_dht_knows_is_found(tmp_path):
    network = MemoryNetwork()
    me, caller, holder = (Node(network, tmp_path, name) for name in ("me", "caller", "holder"))
    image = put_config(holder.store, ImageConfig(layers=(layer(holder.store, 1),)))
    async with trio.open_nursery() as nursery:
        await start(nursery, me, caller, holder)
        await holder.transport.provide(image_key(image))
        await me.fetch(image, caller)
        nursery.cancel_scope.cancel()
    assert holder.sent
    assert not caller.sent


async def test_images_that_share_a_layer_fetch_it_once_when_pulled_at_once(tmp_path):
    network = MemoryNetwork()
    me, caller = Node(network, tmp_path, "me"), Node(network, tmp_path, "caller")
    shared = layer(caller.store, 1)
    images = [
        put_config(caller.store, ImageConfig(layers=(shared, layer(caller.store, seed, 100_000)))) for seed in (2, 3)
    ]
    async with trio.open_nursery() as nursery:
        await start(nursery, me, caller)
        async with trio.open_nursery() as pulls:
            for image in images:
                pulls.start_soon(me.fetch, image, caller)
        assert not [image for image in images if await me.fetcher.lacks(image)]
        nursery.cancel_scope.cancel()
    data = [digest for digest in caller.sent if digest not in shared.chunks]
    assert len(data) == len(set(data))


async def test_a_node_that_is_still_fetching_serves_what_it_has(tmp_path):
    network = MemoryNetwork()
    slow = Node(network, tmp_path, "slow", upload=1 << 20)
    half, late = Node(network, tmp_path, "half"), Node(network, tmp_path, "late")
    image = put_config(slow.store, ImageConfig(layers=(layer(slow.store, 1, 3 << 20),)))
    async with trio.open_nursery() as nursery:
        await start(nursery, slow, half, late)
        async with trio.open_nursery() as pulls:
            pulls.start_soon(half.fetch, image, slow)
            while not half.store.has(bytes.fromhex(image)) or len(slow.sent) < 20:
                await trio.sleep(0.01)
            assert list(half.fetcher.partial) == [image]
            await half.transport.provide(image_key(image))
            pulls.start_soon(late.fetch, image, slow)
        nursery.cancel_scope.cancel()
    assert half.sent


async def test_an_image_over_the_owners_limit_is_refused_before_its_data_moves(tmp_path):
    network = MemoryNetwork()
    me, caller = Node(network, tmp_path, "me", image_bytes=1 << 20), Node(network, tmp_path, "caller")
    ref = layer(caller.store, 1, 2 << 20)
    image = put_config(caller.store, ImageConfig(layers=(ref,)))
    async with trio.open_nursery() as nursery:
        await start(nursery, me, caller)
        with pytest.raises(ExceptionGroup) as caught:
            await me.fetch(image, caller)
        nursery.cancel_scope.cancel()
    assert caught.group_contains(ImageError, match="at most 1 MiB")
    assert len(caller.sent) <= 1 + len(ref.chunks)


async def test_the_upload_cap_holds(tmp_path):
    network = MemoryNetwork()
    me, caller = Node(network, tmp_path, "me"), Node(network, tmp_path, "caller", upload=2 << 20)
    image = put_config(caller.store, ImageConfig(layers=(layer(caller.store, 1, 2 << 20),)))
    async with trio.open_nursery() as nursery:
        await start(nursery, me, caller)
        start_s = trio.current_time()
        await me.fetch(image, caller)
        assert trio.current_time() - start_s > 0.5  # 1 s, less the burst and what compression saves
        nursery.cancel_scope.cancel()


async def test_the_download_cap_holds(tmp_path):
    network = MemoryNetwork()
    me, caller = Node(network, tmp_path, "me", download=2 << 20), Node(network, tmp_path, "caller")
    image = put_config(caller.store, ImageConfig(layers=(layer(caller.store, 1, 2 << 20),)))
    async with trio.open_nursery() as nursery:
        await start(nursery, me, caller)
        start_s = trio.current_time()
        await me.fetch(image, caller)
        assert trio.current_time() - start_s > 0.5  # 1 s, less the burst and what compression saves
        nursery.cancel_scope.cancel()


def test_the_bucket_lets_bursts_through_and_holds_the_rate_over_time():
    bucket, now_us, waited = TokenBucket(1_000_000), 0, 0
    for _ in range(100):
        wait = bucket.wait_us(100_000, now_us)
        waited += wait
        now_us += wait
    assert 10_000_000 - 2 * BURST_US - 100_000 <= now_us <= 10_000_000
    assert TokenBucket(0).wait_us(1 << 40, 0) == 0
    assert bucket.wait_us(1, now_us + 10_000_000) == 0
