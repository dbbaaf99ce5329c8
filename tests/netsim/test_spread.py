"""An image for many at once: all get it, right and once; and each defence is what prevents the opposite."""

import pytest
from tests.netsim.broken import first_broken

from potluck_images.chunk import Chunk
from potluck_images.sync import ChunkSync
from potluck_netsim.scenarios import Options
from potluck_netsim.spread import Spread


def mesh(seed):
    return Spread(Options(seed, 6, 3))


@pytest.mark.parametrize("seed", range(6))
def test_everybody_who_stays_has_the_image_and_the_first_node_does_not_send_it_to_all(seed):
    world = mesh(seed)
    world.run()
    found = world.figures()
    assert found["first_images"] < 5
    assert found["floor50_s"] * 0.9 <= found["t50_s"]


def breaks(seeds=range(100)):
    return first_broken(mesh, seeds)


def test_nodes_that_do_not_verify_keep_junk(monkeypatch):
    def believe(core, name, digest, frame):
        return core._accept(core._peers[name], Chunk(digest, frame, 1)) if name in core._peers else []

    monkeypatch.setattr(ChunkSync, "_receive", believe)
    assert "keeps what is not in the image" in breaks()


def test_nodes_that_forget_what_came_fetch_it_again(monkeypatch):
    accept = ChunkSync._accept

    def forget(core, peer, chunk):
        stored = accept(core, peer, chunk)
        core._is_rare(chunk.digest)
        return stored

    monkeypatch.setattr(ChunkSync, "_accept", forget)
    assert "chunks again that it had" in breaks()


def test_nodes_that_wait_for_the_dead_never_have_it_all(monkeypatch):
    monkeypatch.setattr(ChunkSync, "_lose", lambda core, name: [])
    monkeypatch.setattr(ChunkSync, "_choose_overdue", lambda core, peer, room: [])
    assert "everybody who stays ends with the image" in breaks()
