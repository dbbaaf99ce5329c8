"""Nodes of one machine that tell each other what they lend of it."""

import fcntl
import os
from pathlib import Path

import pytest
import trio

from potluck_node import neighbours
from potluck_node.core import provider_events as ev
from potluck_node.neighbours import Neighbours, others_in


class Teller:
    def __init__(self, folder: Path) -> None:
        self.reserved = (0, 0)
        self.heard: list[ev.NeighboursSeen] = []
        self.neighbours = Neighbours(folder, lambda: self.reserved, self.heard.append)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "lent"


async def test_each_hears_what_the_others_reserve_and_that_they_are_gone(folder, nursery, autojump_clock):
    ann, bob = Teller(folder), Teller(folder)
    ann.reserved = (2000, 512)
    await nursery.start(ann.neighbours.serve)
    async with trio.open_nursery() as bobs:
        bob.reserved = (1000, 256)
        await bobs.start(bob.neighbours.serve)
        assert bob.heard == [ev.NeighboursSeen(2000, 512)]
        await trio.sleep(3 * neighbours.LOOK_S)
        assert ann.heard == [ev.NeighboursSeen(1000, 256)]
        bob.reserved = (0, 0)
        await trio.sleep(3 * neighbours.LOOK_S)
        assert ann.heard[1:] == [ev.NeighboursSeen(0, 0)]
        bob.reserved = (500, 1)
        await trio.sleep(3 * neighbours.LOOK_S)
        bobs.cancel_scope.cancel()
    await trio.sleep(3 * neighbours.LOOK_S)
    assert ann.heard[2:] == [ev.NeighboursSeen(500, 1), ev.NeighboursSeen(0, 0)]
    assert [path.name for path in folder.iterdir()] == [ann.neighbours._name]


def write(path: Path, text: str, held: bool = True) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    os.write(file, text.encode())
    if held:
        fcntl.flock(file, fcntl.LOCK_EX)
    return file


def test_a_node_that_died_counts_no_more_however_it_died(folder):
    folder.mkdir()
    file = write(folder / "1-a", "2000 512\n")
    assert others_in(folder, "me") == (2000, 512)
    assert others_in(folder, "1-a") == (0, 0)
    os.close(file)
    assert others_in(folder, "me") == (0, 0)


@pytest.mark.parametrize("text", ["", "x y", "1", "1 2 3", "\xff", "9" * 5000])
def test_nonsense_counts_nothing(folder, text):
    folder.mkdir()
    file = write(folder / "1-a", text)
    assert others_in(folder, "me") == (0, 0)
    os.close(file)


def test_claims_have_bounds(folder):
    folder.mkdir()
    file = write(folder / "1-a", f"-5 {10**12}\n")
    assert others_in(folder, "me") == (0, neighbours.CLAIM_MAX)
    os.close(file)


def test_what_is_no_file_is_not_waited_for(folder):
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("/etc/passwd")
    assert others_in(folder, "me") == (0, 0)


async def test_what_dead_nodes_left_is_removed_and_the_living_stay(folder, nursery, autojump_clock):
    folder.mkdir()
    dead, alive = folder / f"{os.getuid()}-dead", folder / f"{os.getuid()}-alive"
    os.close(write(dead, "1 1\n"))
    file = write(alive, "1 1\n")
    for path in (dead, alive):
        os.utime(path, (0, 0))
    await nursery.start(Teller(folder).neighbours.serve)
    assert not dead.exists()
    assert alive.exists()
    os.close(file)


async def test_a_folder_that_cannot_be_used_is_said_and_nothing_else(tmp_path, nursery, caplog):
    blocked = tmp_path / "file"
    blocked.touch()
    await nursery.start(Teller(blocked / "lent").neighbours.serve)
    assert "cannot be seen" in caplog.text
