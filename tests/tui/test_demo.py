"""The recording that `potluck tui --demo` plays."""

import asyncio

import msgspec
import pytest
from tests.tui.screen import running, shown, until, until_shown

from potluck.errors import InvalidError
from potluck.wire import control
from potluck.wire.policy import AskPolicy, Drain
from potluck_tui import demo
from potluck_tui.demo import FILE_BYTES_MAX, Demo, Line, Recording, load, moved
from potluck_tui.pages import PAGES

SECOND = 1_000_000
# Well into the first page of the recording.
MOMENT_US = 15 * SECOND


@pytest.fixture(scope="module")
def recording():
    return load()


def ask(source, make, kind=control.Status):
    return asyncio.run(source.ask(make, kind))


def status_of(source):
    return ask(source, control.AskStatus)


def test_it_is_small_and_long_enough(recording):
    assert (demo.files("potluck_tui") / demo.FILE).stat().st_size <= FILE_BYTES_MAX
    assert recording.end_us - recording.begin_us > 30 * SECOND


def test_every_page_has_something_to_show(recording):
    async def scene():
        async with running(None, (120, 40), Demo(recording, MOMENT_US)) as (app, pilot):
            await until_shown(pilot, "devices", "H100")
            for page in PAGES[1:]:
                await pilot.press(page.key)
                for block in page.blocks:
                    await until(pilot, lambda name=block: len(shown(app, name).splitlines()) > 1, f"{block} of {page}")
                    assert "No receipts yet" not in shown(app, block)
            assert not any(app._looks.known.problems.values())

    asyncio.run(scene())


def test_its_times_are_moved_to_now_and_it_plays_again(recording, monkeypatch):
    begun_us, length_us = 2 * recording.begin_us, recording.end_us - recording.begin_us
    now_us = begun_us
    monkeypatch.setattr(demo, "_now_us", lambda: now_us)
    source = Demo(recording)
    first = status_of(source)
    now_us = begun_us + 10 * SECOND
    later = status_of(source)
    assert abs(later.now_us - now_us) < 2 * SECOND
    assert later.started_us == first.started_us
    assert later.workers != first.workers
    now_us = begun_us + length_us + 10 * SECOND
    again = status_of(source)
    assert again.now_us - later.now_us == again.started_us - later.started_us == length_us


def test_standing_still_it_has_the_times_of_the_recording(recording):
    found = [status_of(Demo(recording, MOMENT_US)) for _ in range(2)]
    assert found[0] == found[1]
    assert abs(found[0].now_us - recording.begin_us - MOMENT_US) < 2 * SECOND


def test_it_can_be_paused_and_resumed_and_nothing_else(recording):
    source = Demo(recording, MOMENT_US)
    ask(source, lambda number: control.Pause(number, "dinner"), control.Done)
    assert status_of(source).paused == "dinner"
    ask(source, control.Resume, control.Done)
    assert status_of(source).paused == ""
    with pytest.raises(InvalidError, match="potluck up"):
        ask(source, Drain, control.Done)


def raw(message):
    return msgspec.Raw(msgspec.json.encode(message))


def test_of_one_question_the_same_parameters_count_then_the_time():
    def line(at_us, after, owner):
        return Line(at_us, raw(control.AskJournal(0, after)), raw(control.JournalAnswer(0, owner, (), False)))

    made = Recording([line(10, 0, "a"), line(20, 5, "b"), line(30, 0, "c")])
    told = {
        (after, at): made.answer(control.AskJournal(0, after), at)[1].owner for after in (0, 5, 7) for at in (5, 35)
    }
    assert told == {(0, 5): "a", (0, 35): "c", (5, 5): "b", (5, 35): "b", (7, 5): "a", (7, 35): "c"}
    with pytest.raises(InvalidError):
        made.answer(AskPolicy(0), 10)


def test_moments_are_moved_and_lengths_of_time_are_not(recording):
    status = status_of(Demo(recording, MOMENT_US))
    later = moved(status, SECOND)
    assert later.now_us == status.now_us + SECOND
    assert [peer.rtt_us for peer in later.peers] == [peer.rtt_us for peer in status.peers]
    assert [each.since_us - SECOND for each in later.workers] == [each.since_us for each in status.workers]
    assert moved(later, -SECOND) == status
