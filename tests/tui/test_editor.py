"""Editing the policy: what it would do is shown while it is typed, errors stand below, saving asks the node."""

import pytest
from tests.tui.desk import a_status
from tests.tui.screen import on_screen, until, until_shown
from textual.geometry import Region
from textual.widgets import TextArea

from potluck.errors import InvalidError
from potluck.wire.policy import AskPolicy, SetPolicy
from potluck_tui.dialogs import Confirm
from potluck_tui.editor import TEXT_MAX, PolicyEditor


@pytest.fixture
def path(tmp_path):
    return tmp_path / "node.sock"


async def opened(app, pilot):
    await pilot.press("6")
    await until_shown(pilot, "settings", "polite")
    await pilot.press("e")
    assert isinstance(app.screen, PolicyEditor)
    await until_previewed(pilot, "Nothing keeps this machine from working for others.")


def previewed(app):
    widget = app.screen.query_one("#preview")
    return "\n".join(line.text.rstrip() for line in widget.render_lines(Region(0, 0, *widget.outer_size)))


async def until_previewed(pilot, text):
    await until(pilot, lambda: text in previewed(pilot.app), f"{text!r} in the preview")


def saved(desk):
    return [each.text for each in desk.asked if isinstance(each, SetPolicy)]


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_what_is_typed_is_tried_and_saved(path, size):
    async def check(app, pilot, desk):
        await opened(app, pilot)
        area = app.screen.query_one(TextArea)
        assert area.text == 'preset = "always"\n'
        assert area.region.height >= 6
        assert app.screen.query_one("#preview").region.height >= 2
        await pilot.press(*"idle")
        await until_previewed(pilot, "! Somebody is [here].")
        assert saved(desk) == []
        await pilot.press("ctrl+s")
        await until(pilot, lambda: not isinstance(app.screen, PolicyEditor), "the end")
        assert saved(desk) == ['preset = "always"\nidle']
        assert [each.message for each in app._notifications] == ["The policy is saved, and in force."]
        await pilot.press("e")
        assert app.screen.query_one(TextArea).text == 'preset = "always"\nidle'

    on_screen(path, check, a_status(), size)


def test_what_is_wrong_stands_below_the_text_and_nothing_is_lost(path):
    async def check(app, pilot, desk):
        await opened(app, pilot)
        await pilot.press(*"wrong")
        await until_previewed(pilot, "✗ There is no [setting] 'wrong'.")
        await until_previewed(pilot, "Take 'windows'.")
        desk.refuse[SetPolicy] = InvalidError("The disk is [full].")
        await pilot.press("ctrl+s")
        await until_previewed(pilot, "✗ The disk is [full].")
        assert app.screen.query_one(TextArea).text.endswith("wrong")

    on_screen(path, check)


def test_leaving_asks_where_something_would_be_lost(path):
    async def check(app, pilot, desk):
        await opened(app, pilot)
        await pilot.press("escape")
        assert not isinstance(app.screen, PolicyEditor)
        await pilot.press("e", *"q", "escape")
        assert isinstance(app.screen, Confirm)
        await pilot.press("n")
        assert isinstance(app.screen, PolicyEditor)
        assert app.screen.query_one(TextArea).text.endswith("q")
        await pilot.press("escape", "y")
        assert not isinstance(app.screen, PolicyEditor)
        assert saved(desk) == []

    on_screen(path, check)


def test_an_empty_text_is_asked_about_as_such_and_a_huge_one_not_at_all(path):
    async def check(app, pilot, desk):
        await opened(app, pilot)
        app.screen.query_one(TextArea).text = ""
        await until(pilot, lambda: "\n" in [each.text for each in desk.asked if isinstance(each, AskPolicy)], "asking")
        app.screen.query_one(TextArea).text = "#" * (TEXT_MAX + 1)
        await until_previewed(pilot, "✗ This is too long for a policy.")

    on_screen(path, check)


def test_the_node_may_go_and_come_while_it_is_edited(path):
    async def check(app, pilot, desk):
        await opened(app, pilot)
        await desk.stop()
        await until_shown(pilot, "sentence", "No node answers on this machine.")
        await pilot.press(*"idle")
        await until_previewed(pilot, "No node answers on this machine.")
        await pilot.press("ctrl+s")
        assert app.screen.query_one(TextArea).text.endswith("idle")

    on_screen(path, check)


def test_only_the_page_of_the_policy_edits(path):
    async def check(app, pilot, _desk):
        assert app.check_action("edit_policy", ()) is False
        await pilot.press("e")
        assert not isinstance(app.screen, PolicyEditor)

    on_screen(path, check)
