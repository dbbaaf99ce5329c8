"""The policy as a text to edit, with what the node would do under it. Loaded when it is first asked for."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Protocol

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer, TextArea

from potluck.errors import Error
from potluck.wire import control
from potluck.wire.policy import AskPolicy, PolicyTold, SetPolicy
from potluck_tui.dialogs import Confirm
from potluck_tui.link import Link
from potluck_tui.pages import Note, Notes, policy_blocks
from potluck_tui.widgets import Section

# After the last key: whoever types is not answered letter by letter.
PREVIEW_AFTER_S = 0.25
# A policy has some thirty settings; the node refuses more than it reads, and so much is no policy.
TEXT_MAX = 32 << 10


class Home(Protocol):
    """What the editor needs of the app."""

    def latest(self) -> control.Status:
        """The node as it was last seen."""
        ...


class PolicyEditor(ModalScreen[bool]):
    """Ends with whether the policy was changed. `text` is the table [policy] without its heading."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "save", "Save", priority=True),
        Binding("escape", "leave", "Leave", priority=True),
    ]

    def __init__(self, link: Link, home: Home, text: str) -> None:
        super().__init__()
        self._link, self._home, self._before = link, home, text
        self._news = asyncio.Event()

    def compose(self) -> ComposeResult:
        with Vertical(id="editor"):
            area = TextArea(self._before, id="table", show_line_numbers=False)
            area.border_title = " The table policy of config.toml "
            yield area
            with VerticalScroll(id="outcome"):
                yield Section("What it would do now", "preview")
                yield Section("Settings that would count", "would-count")
            yield Footer()

    def on_mount(self) -> None:
        self._news.set()
        self.run_worker(self._follow(), group="preview")
        area = self.query_one(TextArea)
        area.move_cursor(area.document.end)
        area.focus()

    def on_text_area_changed(self) -> None:
        self._news.set()

    @property
    def _text(self) -> str:
        return self.query_one(TextArea).text

    # The preview

    async def _follow(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await self._preview()
            await asyncio.sleep(PREVIEW_AFTER_S)

    async def _preview(self) -> None:
        # Without any text the question would be about the policy that there is.
        text = self._text or "\n"
        if len(text) > TEXT_MAX:
            self._problem("This is too long for a policy.")
            return
        try:
            told = await self._link.ask(lambda number: AskPolicy(number, {}, text), PolicyTold)
        except Error as error:
            self._problem(str(error))
            return
        blocks = policy_blocks(self._home.latest(), told)
        reasons, settings = blocks["reasons-now"], blocks["settings"]
        assert isinstance(reasons, Notes)
        assert not isinstance(settings, Notes)
        self.query_one("#preview", Section).show_notes(reasons)
        self.query_one("#would-count", Section).show_whole(settings)

    def _problem(self, text: str) -> None:
        first, *rest = text.splitlines()
        self.query_one("#preview", Section).show_notes(Notes((Note("missing", first, tuple(rest)),), ""))

    # Keys

    def action_save(self) -> None:
        """Write it, and have the node go by it."""
        self.run_worker(self._save(), group="save", exclusive=True)

    async def _save(self) -> None:
        text = self._text
        try:
            await self._link.ask(lambda number: SetPolicy(number, text), control.Done)
        except Error as error:
            self._problem(str(error))
            return
        self.app.notify("The policy is saved, and in force.", markup=False)
        self.dismiss(True)

    def action_leave(self) -> None:
        """Without saving; asks where something would be lost."""
        if self._text == self._before:
            self.dismiss(False)
            return
        self.app.push_screen(Confirm("Leave without saving the changes?"), self._left)

    def _left(self, yes: bool | None) -> None:
        if yes:
            self.dismiss(False)
