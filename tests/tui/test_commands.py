"""Everything that the terminal does, the command line does, too: for servers, scripts, and those who cannot see it."""

import click
import pytest
from textual.binding import Binding

from potluck.cli.main import main
from potluck_tui.acts import ACTS
from potluck_tui.app import COMMANDS, PotluckApp
from potluck_tui.editor import PolicyEditor
from potluck_tui.pages import PAGES
from potluck_tui.widgets import ChoosingBody

# What a person can have the node do.
ACTIONS = {
    "pause": "pause",
    "pause_now": "pause --now",
    "resume": "resume",
    "edit_policy": "policy edit",
    "save": "policy set",
    **{f"act('{act.name}')": act.command for act in ACTS},
}
# What is shown on each page.
SHOWN = {
    "overview": ("status", "history", "container list", "ledger report"),
    "calling": ("status --calls", "app logs", "container list", "watch", "log"),
    "mesh": ("mesh peers", "mesh status", "status"),
    "images": ("image ls", "volume list"),
    "account": ("ledger report --by", "ledger list", "ledger verify"),
    "policy": ("policy explain --facts", "policy show", "policy simulate"),
    "doctor": ("doctor",),
}
# What concerns the screen alone; `look_again` is the same command once more.
OF_THE_SCREEN = {"look_again", "dark_or_light", "help", "quit", "leave", "choose(-1)", "choose(1)"}


def bound():
    for owner in (PotluckApp, ChoosingBody, PolicyEditor):
        for each in owner.BINDINGS:
            assert isinstance(each, Binding)
            if not each.action.startswith("go("):
                yield each.action.removeprefix("app.")


def test_every_key_has_a_command():
    actions = {*bound(), *(name for name, *_ in COMMANDS)}
    assert actions == set(ACTIONS) | OF_THE_SCREEN


def test_every_page_has_commands():
    assert set(SHOWN) == {page.name for page in PAGES}


@pytest.mark.parametrize("line", sorted({*ACTIONS.values(), *(each for found in SHOWN.values() for each in found)}))
def test_the_command_is_there(line):
    words, options = (
        [each for each in line.split() if each[0] != "-"],
        [each for each in line.split() if each[0] == "-"],
    )
    command, context = main, click.Context(main)
    for word in words:
        command = command.get_command(context, word)
        assert command is not None, word
    known = {name for parameter in command.params for name in parameter.opts}
    assert set(options) <= known


def test_keys_do_not_get_into_each_others_way():
    """On one page each key has one meaning."""
    moving = [key for each in ChoosingBody.BINDINGS for key in each.key.split(",")]
    for page in PAGES:
        others = {act.key for act in ACTS if act.page != page.name}
        keys = [each.key for each in PotluckApp.BINDINGS if each.key not in others] + moving
        assert len(keys) == len(set(keys))
