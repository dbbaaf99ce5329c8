"""A volume on its owner's node: commits, history, what survives a restart, and who may ask."""

import secrets
from contextlib import asynccontextmanager

import pytest
import trio
from tests.meshnode.clocks import HandClock

from potluck.errors import AlreadyExistsError, ImageError, InvalidError, NotFoundError, RefusedError
from potluck.wire import state as shared
from potluck.wire import volumes as messages
from potluck_images.config import ImageConfig
from potluck_images.image import put_config
from potluck_images.pack import pack
from potluck_images.tree import Text, Tree
from potluck_ledger.envelope import EnvelopeError
from potluck_ledger.keys import PrivateKey
from potluck_ledger.volume_heads import head_digest, read_head
from potluck_node.core.offers import OfferBook
from potluck_node.fetch import Fetcher
from potluck_node.images import ImageService
from potluck_node.state.service import State
from potluck_node.state.work import Asker
from potluck_node.transport.memory import MemoryNetwork, MemoryTransport
from potluck_node.volumes.service import VolumeService

OWNER = Asker("client 1")
GIB = 1 << 30


class World:
    """One node that keeps volumes."""

    def __init__(self, folder, place, key=None):
        self.clock, self.key = HandClock(), key or PrivateKey.generate()
        transport = MemoryTransport(MemoryNetwork(), self.key.peer, lambda key, value: 0)
        book = OfferBook("local", self.key.peer)
        self.images = ImageService(folder, GIB, lambda store: Fetcher(transport, store, book, self.clock))
        self.state = State(place, self.key.peer, self.clock, GIB)
        self.volumes = self.state.volumes = VolumeService(folder, self.images, self.state, self.key, self.clock)
        self.worker = Asker("lease 1", "app", True, self.key.peer)

    async def ask(self, request, asker=OWNER):
        return await self.state.ask(request, asker)

    async def make(self, name="v"):
        return (await self.ask(shared.Open(messages.VOLUME, name, create=True))).id

    async def put(self, volume, files, force=True, asker=OWNER):
        upload = secrets.token_hex(16)
        for number, data in enumerate(files.values()):
            if data:
                await self.ask(messages.StageData(upload, number, data), asker)
        puts = tuple(messages.PutFile(path, number, False, force) for number, path in enumerate(files))
        return await self.ask(messages.ChangeVolume(volume, puts, upload), asker)

    async def files(self, volume, version=0):
        page = await self.ask(messages.ListFiles(volume, "", True, version=version))
        found = [each.path for each in page.files if each.kind == messages.FILE]
        return {
            path: (await self.ask(messages.ReadFile(volume, path, version=version))).data.decode() for path in found
        }

    def worked(self, files, removed=()):
        """What a worker changed, as its node hands it over."""
        tree = Tree()
        for path, text in files.items():
            tree.put(f"volume/{path}", Text(text.encode()))
        for path in removed:
            tree.remove(f"volume/{path}")
        return put_config(self.images.store, ImageConfig((pack(tree, self.images.store),), workdir="/"))

    def close(self):
        self.images.close()
        self.state.close()


@asynccontextmanager
async def serving(*worlds):
    async with trio.open_nursery() as nursery:
        for world in worlds:
            await nursery.start(world.state.serve)
        yield
        nursery.cancel_scope.cancel()
    for world in worlds:
        world.close()


@pytest.fixture
async def world(tmp_path):
    made = World(tmp_path / "node", tmp_path / "state.sqlite")
    async with serving(made):
        yield made


async def test_what_is_put_is_listed_and_read(world):
    volume = await world.make()
    assert (await world.ask(messages.AskHead(volume))).version == 0
    assert await world.files(volume) == {}
    large = secrets.token_hex(messages.BLOCK_BYTES // 2 + 50_000).encode()
    await world.put(volume, {"a.txt": b"one", "sub/b.txt": b"", "sub/large": large[: messages.BLOCK_BYTES]})
    assert await world.files(volume) == {
        "a.txt": "one", "sub/b.txt": "", "sub/large": large[: messages.BLOCK_BYTES].decode(),
    }  # fmt: skip
    page = await world.ask(messages.ListFiles(volume, "/"))
    assert [(each.path, each.kind) for each in page.files] == [("a.txt", "file"), ("sub", "folder")]
    with pytest.raises(NotFoundError):
        await world.ask(messages.ReadFile(volume, "missing"))
    with pytest.raises(InvalidError):
        await world.ask(messages.ReadFile(volume, "../../etc/passwd"))


async def test_without_force_nothing_is_overwritten_and_nothing_of_the_change_happens(world):
    volume = await world.make()
    await world.put(volume, {"a": b"1"})
    with pytest.raises(AlreadyExistsError):
        await world.put(volume, {"b": b"2", "a": b"2"}, force=False)
    assert await world.files(volume) == {"a": "1"}


async def test_copies_and_removals(world):
    volume = await world.make()
    await world.put(volume, {"a": b"1", "sub/b": b"2"})

    async def do(*operations):
        return await world.ask(messages.ChangeVolume(volume, operations))

    await do(messages.CopyPaths(("a",), "c"), messages.CopyPaths(("a", "c"), "sub"))
    assert await world.files(volume) == {"a": "1", "c": "1", "sub/b": "2", "sub/a": "1", "sub/c": "1"}
    with pytest.raises(InvalidError):
        await do(messages.RemovePath("sub"))
    with pytest.raises(InvalidError):
        await do(messages.CopyPaths(("sub",), "again"))
    await do(messages.CopyPaths(("sub",), "again", True), messages.RemovePath("sub", True))
    assert (await world.files(volume)).keys() == {"a", "c", "again/a", "again/b", "again/c"}


async def test_the_last_writer_wins_for_each_file_and_history_has_the_rest(world):
    volume = await world.make()
    await world.put(volume, {"both": b"0", "one": b"0", "two": b"0"})
    # Two workers that both saw version 1.
    for image in (world.worked({"both": "1", "one": "1"}), world.worked({"both": "2", "two": "2", "new/x": "2"})):
        await world.ask(messages.CommitVolume(volume, image), world.worker)
    assert await world.files(volume) == {"both": "2", "one": "1", "two": "2", "new/x": "2"}
    assert (await world.files(volume, version=2))["both"] == "1"
    await world.ask(messages.RestoreVolume(volume, 2, "both"))
    assert (await world.files(volume))["both"] == "1"
    await world.ask(messages.RestoreVolume(volume, 1))
    assert await world.files(volume) == {"both": "0", "one": "0", "two": "0"}
    page = await world.ask(messages.AskHeads(volume))
    heads = [read_head(envelope) for envelope in page.envelopes]
    assert [head.version for head, _ in heads] == [5, 4, 3, 2, 1]
    assert {signer for _, signer in heads} == {world.key.peer}
    assert [head.parent for head, _ in heads] == [*map(head_digest, page.envelopes[1:]), ""]
    assert heads[2][0].by.startswith("app on ")
    assert heads[2][0].changed == 4
    with pytest.raises(NotFoundError):
        await world.ask(messages.RestoreVolume(volume, 9))


async def test_what_changes_nothing_is_no_version(world):
    volume = await world.make()
    await world.put(volume, {"a": b"1"})
    again = await world.put(volume, {"a": b"1"})
    assert again.version == 1


async def test_many_commits_at_once_lose_none(world):
    volume = await world.make()
    async with trio.open_nursery() as nursery:
        for number in range(8):
            image = world.worked({f"file-{number}": str(number)})
            nursery.start_soon(world.ask, messages.CommitVolume(volume, image), world.worker)
    assert len(await world.files(volume)) == 8


async def test_only_trusted_workers_may_ask(world):
    volume = await world.make()
    stranger = Asker("lease 2", "app", trusted=False, peer="somebody")
    requests = [
        messages.AskHead(volume), messages.ReadFile(volume, "a"), messages.CommitVolume(volume, "0" * 64),
        shared.Open(messages.VOLUME, "v"), shared.Find(messages.VOLUME, volume),
        shared.Delete(messages.VOLUME, volume), shared.ListHolders(messages.VOLUME),
    ]  # fmt: skip
    for request in requests:
        with pytest.raises(RefusedError):
            await world.ask(request, stranger)


async def test_a_commit_that_leaves_the_volume_is_refused(world):
    volume = await world.make()
    await world.put(volume, {"a": b"1"})
    tree = Tree()
    tree.put("etc/passwd", Text(b"x"))
    image = put_config(world.images.store, ImageConfig((pack(tree, world.images.store),), workdir="/"))
    with pytest.raises(ImageError):
        await world.ask(messages.CommitVolume(volume, image), world.worker)
    assert await world.files(volume) == {"a": "1"}


async def test_room_is_never_made_of_volumes(world):
    volume = await world.make()
    await world.put(volume, {"a": secrets.token_bytes(200_000).hex().encode()})
    world.images.keeper.shelf.make_room(1)
    assert len((await world.files(volume))["a"]) == 400_000
    assert world.images.held() == ()
    # A commit leaves nothing behind but its version.
    image = world.worked({"b": "1"})
    await world.ask(messages.CommitVolume(volume, image), world.worker)
    shelf = world.images.keeper.shelf
    assert len(shelf.notes()) == len(shelf.pins()) == 2
    assert image not in {note.image for note in shelf.notes()}
    assert not (world.images.keeper.trees.parent / "holds" / image).exists()
    # Deleted, it is nobody's.
    await world.ask(shared.Delete(messages.VOLUME, name="v"))
    await world.volumes.tidy()
    assert shelf.pins() == []
    assert shelf.notes() == []


async def test_what_a_power_cut_let_go_of_is_held_again(world):
    volume = await world.make()
    at = await world.put(volume, {"a": secrets.token_bytes(100_000)})
    shelf = world.images.keeper.shelf
    for image, reason in shelf.pins():
        shelf.unpin(image, reason)
    await world.volumes.tidy()
    assert shelf.pins() == [(at.image, f"{volume}-1")]


async def test_a_forged_head_is_seen(world):
    volume = await world.make()
    at = await world.put(volume, {"a": b"1"})
    with pytest.raises(EnvelopeError):
        read_head(at.envelope.replace(at.image.encode(), b"0" * 64))


async def test_it_is_there_after_a_restart(tmp_path):
    key = PrivateKey.generate()
    for attempt in range(2):
        world = World(tmp_path / "node", tmp_path / "state.sqlite", key)
        async with serving(world):
            volume = await world.make()
            if not attempt:
                await world.put(volume, {"a": b"1"})
            await world.volumes.tidy()
            assert await world.files(volume) == {"a": "1"}


async def test_nodes_that_share_a_database_overtake_each_other_without_loss(tmp_path, postgres):
    url = postgres.fresh()
    key = PrivateKey.generate()
    one, two = World(tmp_path / "one", url, key), World(tmp_path / "two", url, key)
    # As if they had fetched each other's trees.
    two.volumes._trees.store = two.volumes._trees.images.store = one.images.store
    two.volumes._trees.images = one.images
    async with serving(one, two):
        volume = await one.make()
        async with trio.open_nursery() as nursery:
            for number, world in enumerate((one, two) * 4):
                image = one.worked({f"file-{number}": str(number)})
                nursery.start_soon(world.ask, messages.CommitVolume(volume, image), world.worker)
        assert len(await one.files(volume)) == 8
        assert (await one.ask(messages.AskHead(volume))).version == 8
