"""The frame that is in sight before textual is loaded."""

import asyncio
import re

import pytest
from tests.tui.desk import Desk, a_call, a_peer, a_status, a_worker
from tests.tui.screen import running, screen_lines, until

from potluck_tui.demo import Demo, load
from potluck_tui.first import LOOKING, frame
from potluck_tui.source import Glance, LocalNode

MOMENT_US = 15_000_000
BUSY = a_status(
    calls=(a_call(note="waiting"),), workers=tuple(a_worker(f"ann-{number}") for number in range(9)), peers=(a_peer(),),
    paused="x" * 100,
)  # fmt: skip


def said(lines, has_gpus):
    """Without the history: its graphs, and the lines and words for which it makes room."""
    kept = [line for line in lines if "24 h ·" not in line and (has_gpus or "GPU" not in line)]
    return [re.sub(r"\s+", " ", re.sub("[▁-█░]", "", line)).strip() for line in kept]


# Where the history leaves the other figures of GPUs their room, they are the same.
@pytest.mark.parametrize(("size", "has_gpus"), [((80, 24), True), ((120, 40), False), ((60, 20), False)])
def test_it_is_the_first_page_word_for_word(size, has_gpus):
    source = Demo(load(), MOMENT_US)
    early = frame(source.glance(), *size)

    async def scene():
        async with running(None, size, source) as (app, pilot):
            await until(pilot, lambda: app._looks.known.history and not app._looks._under_way, "the history")
            app._show_page()
            await pilot.pause()
            return screen_lines(app)

    late = said(asyncio.run(scene())[:-1], has_gpus)
    early = said(early, has_gpus)
    assert len(early) > size[1] // 2
    assert early == late[: len(early)]


@pytest.mark.parametrize("status", [BUSY, a_status(), a_status(offering=False), None])
@pytest.mark.parametrize("size", [(80, 24), (40, 10), (1, 1), (300, 100)])
def test_it_fits_every_window(status, size):
    lines = frame(status and Glance(status), *size)
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

    assert asyncio.run(scene()).status.workers == BUSY.workers
