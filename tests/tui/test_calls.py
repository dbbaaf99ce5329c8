"""The page of calls: which one is chosen, what it prints, how it is stopped, and what happened lately."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tui.desk import a_call, a_status, a_worker
from tests.tui.screen import on_screen, shown, until, until_shown

from potluck.errors import InvalidError
from potluck.wire.apps import AskAppLogs, EndCall, LogLine, StopApp
from potluck_tui.dialogs import Confirm
from potluck_tui.logs import LINES_MAX, STRANGER_LINE_MAX, Tail

TWO = a_status(calls=(a_call(), a_call(call="1.2", function="score")))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "node.sock"


def piece(number, text, function="train", worker="w1", stream=1):
    return LogLine(number, 0, function, worker, stream, text.encode() if isinstance(text, str) else text)


class TestTail:
    def test_lines_of_several_workers_are_put_together(self):
        tail = Tail("lab", "train")
        tail.add([piece(1, "one\ntw"), piece(2, "other\n", worker="w2"), piece(3, "o\nthr"), piece(4, "not", "score")])
        assert tail.rows() == (("w1", "one"), ("w2", "other"), ("w1", "two"), ("w1", "thr"))
        assert tail.after == 4
        before = tail.rows()
        tail.add([piece(4, "again\n"), piece(1, "again\n")])
        assert tail.rows() == before

    def test_it_is_plain_text_and_bounded(self):
        tail = Tail("lab", "train")
        tail.add([piece(1, "\x1b[2J\r\n"), piece(2, b"\xff\n")])
        assert [line for _, line in tail.rows()] == ["�[2J", "�"]
        tail.add(piece(number, f"{number}\n") for number in range(3, 3 * LINES_MAX))
        assert len(tail.rows()) == LINES_MAX
        tail.add(piece(number, "x" * 9000, worker=f"w{number}") for number in range(2000, 2000 + 2 * LINES_MAX))
        assert len(tail._open) <= LINES_MAX
        assert all(len(each) <= STRANGER_LINE_MAX for each in tail._open.values())

    @given(st.text(alphabet="ab\n", max_size=60), st.lists(st.integers(0, 60), max_size=8))
    def test_wherever_pieces_end_the_lines_are_the_same(self, text, cuts):
        ends = sorted({*(min(cut, len(text)) for cut in cuts), 0, len(text)})
        whole, cut = Tail("lab", "train"), Tail("lab", "train")
        whole.add([piece(1, text)])
        cut.add(piece(n, text[a:b]) for n, (a, b) in enumerate(itertools.pairwise(ends), 1))
        assert cut.rows() == whole.rows()


def test_the_chosen_call_shows_what_it_prints_as_it_comes(path):
    async def check(app, pilot, desk):
        desk.prints = [piece(1, "epoch [b]1\n"), piece(2, "scored\n", "score", "w2")]
        await pilot.press("2")
        await until_shown(pilot, "placed", "› train")
        await until_shown(pilot, "log", "epoch [b]1")
        assert "scored" not in shown(app, "log")
        desk.prints.append(piece(3, "epoch 2\n"))
        await until_shown(pilot, "log", "epoch 2")
        await pilot.press("j")
        await until_shown(pilot, "placed", "› score")
        await until_shown(pilot, "log", "scored")
        await pilot.press("k")
        await until_shown(pilot, "placed", "› train")
        await pilot.click("#placed", offset=(6, 3))
        await until_shown(pilot, "placed", "› score")
        await pilot.click("#placed", offset=(6, 1))
        await pilot.click("#log", offset=(6, 1))
        assert "› score" in shown(app, "placed")
        await pilot.click("#placed", offset=(6, 2))
        await until_shown(pilot, "placed", "› train")
        desk.status = a_status()
        await until_shown(pilot, "placed", "No calls from here now.")
        await until_shown(pilot, "log", "No call, no prints.")
        # Nothing is asked for twice.
        assert len({each.after for each in desk.asked if isinstance(each, AskAppLogs)}) > 1

    on_screen(path, check, TWO)


@pytest.mark.parametrize(("answer", "stopped"), [("y", ["lab"]), ("escape", [])])
def test_its_app_is_stopped_after_a_question(path, answer, stopped):
    async def check(app, pilot, desk):
        assert app.check_action("act", ("stop_app",)) is False
        await pilot.press("2")
        await until_shown(pilot, "placed", "› train")
        assert app.check_action("act", ("stop_app",)) is True
        await pilot.press("x")
        assert isinstance(app.screen, Confirm)
        assert "Stop the app lab? 2 calls would end" in str(app.screen.query_one("Static").render())
        await pilot.press(answer)
        before = len(desk.asked)
        await until(pilot, lambda: len(desk.asked) > before + 3, "some questions")
        assert [each.app for each in desk.asked if isinstance(each, StopApp)] == stopped
        assert [each.message for each in app._notifications] == ["2 calls ended."] * len(stopped)

    on_screen(path, check, TWO)


def test_it_is_cancelled_alone_after_a_question(path):
    async def check(app, pilot, desk):
        await pilot.press("2")
        await until_shown(pilot, "placed", "› train")
        await pilot.press("l")
        assert "Cancel this call of train? " in str(app.screen.query_one("Static").render())
        await pilot.press("y")
        await until(pilot, lambda: any(isinstance(each, EndCall) for each in desk.asked), "its end")
        assert [each.call for each in desk.asked if isinstance(each, EndCall)] == [TWO.calls[0].call]
        assert [each.message for each in app._notifications] == ["Done."]

    on_screen(path, check, TWO)


def dimmed(app):
    return {each.key for each in app.screen_stack[0].query("FooterKey") if each.has_class("-disabled")}


def test_the_key_is_dimmed_while_there_is_no_call(path):
    async def check(app, pilot, desk):
        await pilot.press("2")
        await until(pilot, lambda: "x" in dimmed(app), "the dimmed key")
        desk.status = TWO
        await until(pilot, lambda: "x" not in dimmed(app), "the key")

    on_screen(path, check)


def test_a_refusal_stands_where_the_prints_would(path):
    async def check(_app, pilot, desk):
        desk.refuse[AskAppLogs] = InvalidError("Not [today].")
        await pilot.press("2")
        await until_shown(pilot, "log", "Not [today].")

    on_screen(path, check, TWO)


def test_what_happened_lately_is_told(path):
    async def check(_app, pilot, desk):
        await pilot.press("2")
        await until_shown(pilot, "lately", "Nothing has changed since this screen began.")
        desk.status = a_status(workers=(a_worker(caller="12D3KooW\x1bBob"),))
        await until_shown(pilot, "lately", "train runs for")

    on_screen(path, check, a_status(), (80, 40))
