"""The frame that is in sight before textual is loaded."""

import asyncio

import pytest
from tests.tui.desk import Desk, a_call, a_peer, a_status, a_worker
from tests.tui.screen import running, screen_lines, until_shown

from potluck_tui.demo import Demo, load
from potluck_tui.first import LOOKING, frame
from potluck_tui.looks import Looks
from potluck_tui.source import LocalNode

MOMENT_US = 15_000_000
BUSY = a_status(
    calls=(a_call(note="waiting"),), workers=tuple(a_worker(f"ann-{number}") for number in range(9)), peers=(a_peer(),),
    paused="x" * 100,
)  # fmt: skip


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (60, 20)])
def test_it_is_the_first_page_word_for_word(size, monkeypatch):
    # As it is before the GPUs were read, which takes longer than a status.
    monkeypatch.setattr(Looks, "due", lambda self, page: False)
    source = Demo(load(), MOMENT_US)
    early = frame(source.glance(), *size)

    async def scene():
        async with running(None, size, source) as (app, pilot):
            await until_shown(pilot, "name", "ann")
            await pilot.pause()
            return screen_lines(app)

    late = asyncio.run(scene())
    assert early[: size[1] - 1] == [line.rstrip() for line in late[: len(early)]]


@pytest.mark.parametrize("status", [BUSY, a_status(), a_status(offering=False), None])
@pytest.mark.parametrize("size", [(80, 24), (40, 10), (1, 1), (300, 100)])
def test_it_fits_every_window(status, size):
    lines = frame(status, *size)
    assert len(lines) <= max(size[1], 2)
    assert status is None or all(len(line) <= size[0] for line in lines)


def test_without_a_node_it_looks_for_one(tmp_path):
    assert LocalNode(tmp_path / "node.sock").glance() is None
    assert LOOKING in "\n".join(frame(None, 80, 24))


def test_a_node_that_does_not_answer_is_left_to_the_app(tmp_path):
    async def scene():
        async with Desk(tmp_path / "node.sock") as desk:
            desk.silent = True
            return await asyncio.to_thread(LocalNode(desk.path).glance)

    assert asyncio.run(scene()) is None


def test_a_node_is_heard(tmp_path):
    async def scene():
        async with Desk(tmp_path / "node.sock", BUSY) as desk:
            return await asyncio.to_thread(LocalNode(desk.path).glance)

    assert asyncio.run(scene()).workers == BUSY.workers
