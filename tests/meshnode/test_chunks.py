"""Pulling an image from several peers, some of which lie, lack chunks, or die."""

import random
from contextlib import asynccontextmanager

import pytest
import trio
from tests.meshnode.clocks import TrioClock

from potluck.wire import chunks as messages
from potluck_images.config import ImageConfig
from potluck_images.errors import ImageError
from potluck_images.image import put_config
from potluck_images.memory import MemoryStore
from potluck_images.pack import pack
from potluck_images.pull import ImagePull, missing_chunks
from potluck_images.tree import Text, Tree
from potluck_node import chunks
from potluck_node.chunks import CHUNKS_PROTOCOL, Puller, Throttle, serve_chunks
from potluck_node.link import StreamLink
from potluck_node.transport.memory import MemoryNetwork, MemoryTransport


def unlimited():
    return Throttle(0, TrioClock())


def image(size=3 << 20):
    """A store with one image of random bytes, and its id."""
    store, tree = MemoryStore(), Tree()
    dice = random.Random(7)
    for number in range(6):
        tree.put(f"data/{number}", Text(dice.randbytes(size // 6)))
    return store, put_config(store, ImageConfig(layers=(pack(tree, store),)))


def honest(store):
    async def serve(stream):
        await serve_chunks(store, TrioClock(), stream, unlimited())

    return serve


def liar(store):
    """Answers every question with another chunk than asked for."""

    async def serve(stream):
        wrong = store.get_frame(next(iter(store._frames)))

        def take(message):
            if isinstance(message, messages.WantChunks):
                for digest in message.digests:
                    link.post(messages.ChunkData(digest, wrong[:-1] + bytes([wrong[-1] ^ 1])))

        link = StreamLink(stream, messages.ToServer, take, TrioClock())
        await link.run()

    return serve


@asynccontextmanager
async def peers(**handlers):
    """A network with an empty node "me" and one node for each handler."""
    network = MemoryNetwork()
    me = MemoryTransport(network, "me", lambda key, value: None)
    async with trio.open_nursery() as nursery:
        await nursery.start(me.serve)
        for name, handler in handlers.items():
            transport = MemoryTransport(network, name, lambda key, value: None)
            transport.handle(CHUNKS_PROTOCOL, handler)
            await nursery.start(transport.serve)
            await me.connect(f"/memory/p2p/{name}")
        yield network, me
        nursery.cancel_scope.cancel()


async def pull(me, image_id, names, store=None):
    store = MemoryStore() if store is None else store
    seen = []
    await Puller(me, store, TrioClock(), ImagePull(store, image_id), unlimited()).run(list(names), seen.append)
    assert not missing_chunks(store, image_id)
    assert seen[-1].done == seen[-1].total
    return store


async def test_an_image_comes_whole_from_two_peers():
    store, image_id = image()
    async with peers(a=honest(store), b=honest(store)) as (_, me):
        await pull(me, image_id, "ab")


async def test_no_more_peers_are_asked_than_a_pull_can_use(monkeypatch):
    monkeypatch.setattr(chunks, "SOURCES_MAX", 1)
    store, image_id = image()
    asked = []

    async def other(stream):
        asked.append(stream)

    async with peers(a=honest(store), b=other) as (_, me):
        await pull(me, image_id, "ab")
    assert not asked


async def test_bad_chunks_are_refused_and_fetched_elsewhere(caplog):
    store, image_id = image()
    async with peers(bad=liar(store), good=honest(store)) as (_, me):
        pulled = await pull(me, image_id, ["bad", "good"])
    assert not pulled.verify()
    assert any("no longer asking bad" in record.getMessage() for record in caplog.records)


async def test_a_peer_that_dies_half_way_is_made_up_for():
    store, image_id = image(12 << 20)
    count = 0

    async def dying(stream):
        nonlocal count

        async def cut():
            while count < 20:
                await trio.sleep(0.001)
            network.cut("me", "dying")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut)
            await serve_chunks(Counting(store), TrioClock(), stream, unlimited())
            nursery.cancel_scope.cancel()

    class Counting:
        def __init__(self, inner):
            self.inner = inner

        def get_frame(self, digest):
            nonlocal count
            count += 1
            return self.inner.get_frame(digest)

    async with peers(dying=dying, good=honest(store)) as (network, me):
        await pull(me, image_id, ["dying", "good"])
    assert count >= 20


async def test_nobody_has_it_is_an_error_and_not_a_wait_without_end(autojump_clock):
    _, image_id = image()
    async with peers(empty=honest(MemoryStore())) as (_, me):
        with pytest.raises((ImageError, ExceptionGroup)) as caught:
            await pull(me, image_id, ["empty", "absent"])
    assert caught.group_contains(ImageError, match="cannot be fetched") or "cannot be fetched" in str(caught.value)


async def test_what_is_here_already_is_not_asked_for():
    store, image_id = image()
    asked = []

    class Watching:
        def get_frame(self, digest):
            asked.append(digest)
            return store.get_frame(digest)

    half = MemoryStore()
    for digest in list(store._frames)[::2]:
        half.put(store.get_frame(digest))
    already = set(half._frames)
    async with peers(a=honest(Watching())) as (_, me):
        await pull(me, image_id, "a", half)
    assert asked
    assert not already & set(asked)
    assert len(asked) == len(set(asked))
