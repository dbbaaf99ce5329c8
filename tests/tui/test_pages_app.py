"""Going from page to page: keys, clicks, help, palette, colours."""

import asyncio

import pytest
from tests.tui.desk import Desk, a_call, a_peer, a_status, a_worker, facts_of
from tests.tui.screen import on_screen, running, shown, until, until_shown
from textual.command import CommandPalette

from potluck.errors import InvalidError
from potluck.wire import control
from potluck.wire.policy import Reason
from potluck.wire.verify import AskPeers
from potluck_tui.app import DARK, LIGHT
from potluck_tui.dialogs import Help
from potluck_tui.pages import PAGES


@pytest.fixture
def path(tmp_path):
    return tmp_path / "node.sock"


HELP = {"mesh": ["reputation", "trust"], "doctor": ["potluck doctor"]}


def in_sight(app):
    """The names of the pages that are displayed."""
    names = ["body" if page is PAGES[0] else page.name for page in PAGES]
    return [name for name in names if app.screen_stack[0].query_one(f"#{name}").display]


BUSY = a_status(calls=(a_call(note="waiting"),), workers=(a_worker(),), peers=(a_peer(rtt_us=1500),))


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_every_page_has_a_key_that_the_first_line_shows_and_help_of_its_own(path, size):
    async def check(app, pilot, _desk):
        for page in [*PAGES[1:], PAGES[0]]:
            assert f"{page.key} {page.title}" in shown(app, "tabs")
            await pilot.press(page.key)
            name = "body" if page is PAGES[0] else page.name
            assert in_sight(app) == [name]
            assert app.query_one(f"#{name}").max_scroll_x == 0
            await pilot.press("question_mark")
            assert isinstance(app.screen, Help)
            text = str(app.screen.query_one("Static").render())
            for heading in list(page.blocks.values())[:1] if page.name not in HELP else HELP[page.name]:
                assert heading in text
            await pilot.press("escape")

    on_screen(path, check, BUSY, size)


def test_pages_follow_the_node(path):
    async def check(app, pilot, desk):
        await pilot.press("2")
        await until_shown(pilot, "placed", "12 of 30 done")
        await until_shown(pilot, "here", "for bob")
        desk.status = a_status()
        await until_shown(pilot, "here", "Nobody uses this machine now.")
        await pilot.press("5")
        await until_shown(pilot, "by-peer", "No receipts yet.")

    on_screen(path, check, BUSY)


def test_peers_are_asked_for_only_on_their_page_and_a_refusal_is_survived(path):
    async def check(_app, pilot, desk):
        assert not any(isinstance(each, AskPeers) for each in desk.asked)
        desk.facts = (facts_of(right=3.0, score=800), facts_of("[b]eve", "id-eve", banned_us=2**60, banned_why="lies"))
        await pilot.press("3")
        await until_shown(pilot, "map", "stranger")
        await until_shown(pilot, "map", "0.80")
        await until_shown(pilot, "map", "[b]eve")
        desk.refuse[AskPeers] = InvalidError("Not today.")
        await pilot.press("2", "3")
        await until_shown(pilot, "map", "bob")

    on_screen(path, check, BUSY, (120, 40))


def test_the_policy_is_asked_again_while_it_is_in_sight(path):
    async def check(_app, pilot, desk):
        await pilot.press("6")
        await until_shown(pilot, "reasons-now", "✓ Nothing keeps this machine from working for others.")
        desk.reasons = (Reason("input", "Somebody is [here].", "Leave it for 5 min."),)
        await until_shown(pilot, "reasons-now", "! Somebody is [here].")
        await until_shown(pilot, "reasons-now", "→ Leave it for 5 min.")
        await until_shown(pilot, "settings", "polite")

    on_screen(path, check)


def test_a_click_goes_to_a_page(path):
    async def check(app, pilot, _desk):
        at = shown(app, "tabs").index("3 Peers")
        await pilot.click("#tabs", offset=(at + 2, 0))
        await until(pilot, lambda: in_sight(app) == ["mesh"], "the peers")

    on_screen(path, check)


def test_losing_the_node_is_seen_on_every_page(path):
    async def check(app, pilot, desk):
        await pilot.press("5")
        await desk.stop()
        await until_shown(pilot, "sentence", "No node answers on this machine.")
        assert in_sight(app) == ["account"]

    on_screen(path, check)


def test_the_colours_are_dark_or_light(path):
    async def check(app, pilot, _desk):
        assert app.theme == DARK
        await pilot.press("t")
        assert app.theme == LIGHT
        await pilot.press("t")
        assert app.theme == DARK

    on_screen(path, check)


def test_the_palette_has_the_pages_and_only_what_would_do_something(path):
    async def check(app, pilot, desk):
        titles = {each.title for each in app.get_system_commands(app.screen)}
        assert titles == {page.title for page in PAGES} | {"Pause", "Pause now", "Dark or light", "Help", "Quit"}
        await pilot.press("ctrl+p")
        assert isinstance(app.screen, CommandPalette)
        await pilot.press(*"pause")
        await until(pilot, lambda: app.screen.query_one("CommandList").option_count, "the commands")
        await pilot.press("enter")
        await until(pilot, lambda: any(isinstance(each, control.Pause) for each in desk.asked), "the pause")

    on_screen(path, check)


class AnswersOnce(Desk):
    def _answer(self, message):
        answer = super()._answer(message)
        self.silent = self.silent or isinstance(message, control.AskStatus)
        return answer


def test_one_status_is_enough_to_fill_the_page(path):
    async def scene():
        async with AnswersOnce(path), running(path) as (_app, pilot):
            await until_shown(pilot, "devices", "0 of 2 in use")

    asyncio.run(scene())
