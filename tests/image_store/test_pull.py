from __future__ import annotations

import os

import pytest
from tests.image_store.helpers import image_of

from potluck_images.config import ImageConfig, LayerRef
from potluck_images.digest import digest
from potluck_images.disk import DiskStore
from potluck_images.errors import ImageError
from potluck_images.image import get_config, put_config
from potluck_images.memory import MemoryStore
from potluck_images.pull import ImagePull, missing_chunks
from potluck_images.sync import Ask, Done, Drop, PeerFailed, PeerJoined, Received, Store, Stuck

FILES = {"big": os.urandom(500_000)} | {f"d{number}/small": b"%d" % number for number in range(50)}


@pytest.fixture
def source():
    return MemoryStore()


def drive(pull, store, peers, stop_after=10**9):
    """Deliver events until the end; returns what was asked for and the last action."""
    asked = []
    actions = [*pull.start()]
    for name in peers:
        actions += pull.handle(PeerJoined(name))
    while actions:
        match actions.pop(0):
            case Ask(peer, digests):
                for wanted in digests:
                    asked.append(wanted)
                    if len(asked) > stop_after:
                        return asked, None
                    actions += pull.handle(Received(peer, wanted, peers[peer].get_frame(wanted)))
            case Store(chunk):
                store.put_chunk(chunk)
            case Done():
                return asked, Done()
            case Drop() as drop:
                return asked, drop
    return asked, None


def test_three_stages_each_chunk_once(source, tmp_path):
    image = image_of(source, FILES, {"other": os.urandom(100_000)})
    store = DiskStore(tmp_path)
    assert missing_chunks(store, image) == [bytes.fromhex(image)]
    pull = ImagePull(store, image)
    asked, end = drive(pull, store, {"a": source, "b": source})
    assert end == Done()
    assert len(asked) == len(set(asked))
    assert asked[0].hex() == image
    assert missing_chunks(store, image) == []
    assert pull.config == get_config(source, image)
    assert pull.progress.done == pull.progress.total > 600_000
    assert ImagePull(store, image).start() == [Done()]
    store.close()


def test_an_interrupted_pull_goes_on_where_it_was(source):
    image = image_of(source, FILES)
    store = MemoryStore()
    before, _ = drive(ImagePull(store, image), store, {"a": source}, stop_after=5)
    have = [name for name in before if store.has(name)]
    after, end = drive(ImagePull(store, image), store, {"a": source})
    assert end == Done()
    assert have
    assert not set(have) & set(after)


def test_what_other_images_share_is_not_asked_for(source):
    first, second = image_of(source, FILES), image_of(source, FILES | {"more": b"x" * 70_000})
    store = MemoryStore()
    everything, _ = drive(ImagePull(store, first), store, {"a": source})
    asked, end = drive(ImagePull(store, second), store, {"a": source})
    assert end == Done()
    assert len(asked) <= 5 < len(everything)


def test_no_peers_is_stuck(source):
    image = image_of(source, FILES)
    pull = ImagePull(MemoryStore(), image)
    assert pull.start() == [Stuck((bytes.fromhex(image),))]
    assert pull.handle(PeerJoined("a")) == [Ask("a", (bytes.fromhex(image),))]
    assert pull.handle(PeerFailed("a")) == [Stuck((bytes.fromhex(image),))]


def test_an_image_that_is_none_is_refused(source):
    nonsense = source.add(b"no config").hex()
    with pytest.raises(ImageError):
        drive(ImagePull(MemoryStore(), nonsense), MemoryStore(), {"a": source})
    with pytest.raises(ImageError):
        ImagePull(MemoryStore(), "..")


def test_an_image_over_the_limit_is_refused_before_its_data(source):
    image = image_of(source, FILES)
    store = MemoryStore()
    with pytest.raises(ImageError, match="MiB"):
        drive(ImagePull(store, image, bytes_max=100_000), store, {"a": source})
    assert not store.has(digest(FILES["d1/small"]))
    assert store._bytes < 20_000


def test_a_config_that_names_endless_manifests_is_refused_before_they_fill_memory(source):
    pieces = tuple(source.add(os.urandom(900_000)) for _ in range(80))
    image = put_config(source, ImageConfig((LayerRef("ab" * 32, pieces),)))
    store = MemoryStore()
    with pytest.raises(ImageError, match="too many files"):
        drive(ImagePull(store, image), store, {"a": source})
    for piece in pieces:
        store.put(source.get_frame(piece))
    with pytest.raises(ImageError, match="too many files"):
        drive(ImagePull(store, image), store, {"a": source})
