"""The screen of the contributor: who uses this machine, what is called from it, and what it gave."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import ClassVar

from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Footer

from potluck import wire
from potluck.changes import changes
from potluck.errors import Error
from potluck.wire import control
from potluck_tui.acts import ACTS, WORK_TIMEOUT_S
from potluck_tui.first import LOOKING
from potluck_tui.fit import FIXED_LINES, GAPS, TALL_LINES, share
from potluck_tui.gpus import gpu_devices, today
from potluck_tui.link import POLL_S, Link
from potluck_tui.looks import Looks
from potluck_tui.model import Listing, View, make_view
from potluck_tui.pages import LATELY_MAX, PAGES, make_page
from potluck_tui.source import Source
from potluck_tui.widgets import ChoosingBody, PageBody, Section, Tabs, Words
from potluck_tui.words import age, clock, counted, plain

# Rates are taken over this long: short enough to follow a change, long enough not to jump with every input.
RATE_S = 5.0
COMMANDS = (
    ("pause", "Pause", "Take no new work; what runs is finished (key p)"),
    ("pause_now", "Pause now", "Also end what runs; asks first (key n)"),
    ("resume", "Resume", "Take work again (key r)"),
    ("look_again", "Look again", "Find out once more what this page shows (key u)"),
    ("edit_policy", "Edit the policy", "Change its text, and see what it would do (key e, on its page)"),
    ("dark_or_light", "Dark or light", "Change the colours (key t)"),
    ("help", "Help", "Explain the figures of this page (key ?)"),
    ("quit", "Quit", "Leave this screen; the node goes on (key q)"),
)
WIDE_COLUMNS = 100
STATES = ("lends", "paused", "calls", "lost", "unknown")
# Figures younger than this are as good as live.
STALE_S = 2.0
DARK, LIGHT = "nord", "textual-light"
OVERVIEW = PAGES[0]


class PotluckApp(App[None]):
    """Shows the node behind `source`."""

    TITLE = "Potluck"
    CSS_PATH = "app.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "pause", "Pause"),
        Binding("r", "resume", "Resume"),
        Binding("n", "pause_now", "Pause now"),
        Binding("u", "look_again", "Again"),
        *(Binding(act.key, f"act('{act.name}')", act.title) for act in ACTS),
        Binding("e", "edit_policy", "Edit"),
        *(Binding(page.key, f"go('{page.name}')", page.title, show=False) for page in PAGES),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
        # Last: where there is too little room, this one is not missed.
        Binding("t", "dark_or_light", "Theme"),
    ]

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._link = Link(source, self)
        self._history: deque[control.Status] = deque(maxlen=round(RATE_S / POLL_S))
        self._view: View | None = None
        self._seen_at = 0.0
        self._connected = False
        self._page = OVERVIEW
        self._looks = Looks(self._link, source)
        # The row that is chosen on each page that has such rows.
        self._chosen: dict[str, str] = {}
        self._lately: deque[tuple[str, str]] = deque(maxlen=LATELY_MAX)
        self._keys: list[bool | None] = []

    def compose(self) -> ComposeResult:
        with Horizontal(id="machine"):
            yield Words("name", "Potluck")
            yield Words("about")
        yield Tabs("tabs")
        yield Words("sentence", LOOKING)
        with VerticalScroll(id="body"):
            yield Section("This machine", "devices")
            yield Section("Workers", "workers")
            yield Section("Calls from here", "calls")
            yield Section("Peers", "peers")
            yield Section("Ledger", "ledger")
        for page in PAGES[1:]:
            yield ChoosingBody(page) if page.chooses else PageBody(page)
        yield Footer()

    def on_mount(self) -> None:
        self.theme = DARK
        self._home.query_one(Tabs).mark(self._page.name)
        self._mark("unknown")
        self.run_worker(self._link.follow(), group="link")

    def on_resize(self) -> None:
        # In a narrow window there is room for the keys of a page, or for this; help names it.
        self._home.query_one(Footer).show_command_palette = self.size.width >= WIDE_COLUMNS
        self.call_after_refresh(self._show_page)

    # What the link sees

    def seen(self, status: control.Status) -> None:
        if self._left:
            return
        if self._history and self._history[-1].started_us != status.started_us:
            self._history.clear()
        self._note(self._history[-1] if self._history else None, status)
        self._history.append(status)
        self._connected, self._seen_at = True, time.monotonic()
        self._view = make_view(status, self._history[0])
        self._looks.has_gpus = bool(status.gpus)
        self._show(self._view)
        self._look()

    def lost(self, error: Error, retry_s: float) -> None:
        if self._left:
            return
        self._connected = False
        self._say(_lost_text(error, retry_s, time.monotonic() - self._seen_at if self._view else None))
        self._mark("lost" if self._view else "unknown")

    # What is shown

    def _show(self, view: View) -> None:
        machine = view.machine
        self._say(machine.sentence)
        self._say(f"{machine.name} · mesh {machine.mesh}", "#name")
        self._say(machine.about, "#about")
        self._mark(machine.state)
        self._show_page()

    def _show_page(self) -> None:
        if self._view is None or self._left:
            return
        if self._page is OVERVIEW:
            self._show_lists(self._view)
            return
        known = replace(self._looks.known, lately=tuple(self._lately))
        blocks = make_page(self._page.name, self._history[-1], self._view, known)
        self._choose(blocks.get(self._page.chooses))
        chosen = self._chosen.get(self._page.name, "")
        self._home.query_one(f"#{self._page.name}", PageBody).show_blocks(blocks, chosen)
        self._show_keys()

    def _show_keys(self) -> None:
        """Keys of a page are dimmed while there is nothing for them; laying them out costs more than looking."""
        found = [self.check_action("act", (act.name,)) for act in ACTS] + [self.check_action("edit_policy", ())]
        if found != self._keys:
            self._keys = found
            self.refresh_bindings()

    def _show_lists(self, view: View) -> None:
        status, known = self._history[-1], self._looks.known
        devices = (*view.devices, *gpu_devices(status, known.gpus, known.history)) if status.offering else ()
        listings = {"workers": view.workers, "calls": view.calls, "peers": view.peers}
        wanted = [len(devices), *(len(listing.rows) for listing in listings.values())]
        tall = self.size.height >= TALL_LINES
        self._home.set_class(tall, "tall")
        room = self.size.height - FIXED_LINES - (GAPS if tall else 0)
        rooms = share(wanted, room)
        # Whatever all lists leave is for graphs, if that is enough for all of them.
        graphs = known.history if room - sum(rooms) >= len(status.gpus) else None
        self._section("devices").show_devices(devices, rooms[0], graphs)
        for (name, listing), room in zip(listings.items(), rooms[1:], strict=True):
            self._section(name).show_listing(listing, room)
        given, *others = view.ledger
        self._section("ledger").show_rows([(*given[:-1], given[-1] + today(known.gpus)), *others])

    @property
    def _left(self) -> bool:
        """Whether the screen is being taken down: what was asked before may still be answered."""
        return not (self.screen_stack and self._home.query("#sentence"))

    @property
    def _home(self) -> Screen[object]:
        """The screen itself, also while a dialog lies over it."""
        return self.screen_stack[0]

    def _section(self, name: str) -> Section:
        return self._home.query_one(f"#{name}", Section)

    def _say(self, text: str, where: str = "#sentence") -> None:
        self._home.query_one(where, Words).show(Content(text))

    def _mark(self, state: str) -> None:
        """Colours and keys follow the state; the sentence says it too."""
        if not self._home.has_class(state):
            self._home.remove_class(*STATES).add_class(state)
            self.refresh_bindings()
            # Rows are cut to the width, which a section that was hidden may not have had.
            self.call_after_refresh(self._show_page)

    def _note(self, before: control.Status | None, now: control.Status) -> None:
        """What happened since, for the page of calls."""
        if before:
            found = (each for each in changes(before, now) if each.kind != "progress")
            self._lately += [(clock(each.at_us), plain(each.text)) for each in found]

    # What is chosen

    def _choose(self, block: object, step: int = 0, row: int | None = None) -> None:
        """Choose another row, or one at all."""
        if isinstance(block, Listing) and block.keys:
            at = block.keys.index(self._chosen[self._page.name]) if self._has_chosen(block) else 0
            row = min(max(0, at + step if row is None else row), len(block.keys) - 1)
            self._chosen[self._page.name] = block.keys[row]
            if step:
                self._home.query_one(f"#{self._page.name}", PageBody).show_row(self._page.chooses, row)
        else:
            self._chosen.pop(self._page.name, None)
        if self._page.name == "calling":
            call = next((each for each in self._history[-1].calls if each.call == self._chosen.get("calling")), None)
            self._looks.choose_call(*((call.app, call.function) if call else ("", "")))

    def _has_chosen(self, block: Listing) -> bool:
        return self._chosen.get(self._page.name) in block.keys

    def action_choose(self, step: int, row: int | None = None) -> None:
        """Go up or down by a row."""
        if self._view is None or not self._page.chooses:
            return
        blocks = make_page(self._page.name, self._history[-1], self._view, self._looks.known)
        self._choose(blocks[self._page.chooses], step, row)
        self._show_page()
        self._look()

    def action_choose_row(self, row: int) -> None:
        """Go to a row, from 0."""
        self.action_choose(0, row)

    def action_act(self, name: str) -> None:
        """Have the node do something with what is chosen, if the person says yes."""
        from potluck_tui.dialogs import Confirm

        act = next(each for each in ACTS if each.name == name)
        chosen, status, known = self._chosen.get(act.page, ""), self._history[-1], self._looks.known

        def answered(yes: bool | None) -> None:
            if yes:
                make = act.make(status, known, chosen)
                self.run_worker(self._told(make, act.kind, act.told, WORK_TIMEOUT_S), group="tell")

        self.push_screen(Confirm(act.question(status, known, chosen)), answered)

    # What a page needs beside the status

    def _look(self) -> None:
        name = self._page.name
        if self._looks.due(name):
            self.run_worker(self._look_at(name), group="look")

    async def _look_at(self, name: str) -> None:
        await self._looks.look(name)
        self._show_page()

    # Keys

    def action_go(self, name: str) -> None:
        """Show another page."""
        self._page = next(page for page in PAGES if page.name == name)
        for page in PAGES:
            body = self._home.query_one("#body" if page is OVERVIEW else f"#{page.name}")
            body.display = page is self._page
            if page is self._page:
                body.focus()
        self._home.query_one(Tabs).mark(name)
        self.refresh_bindings()
        self._looks.forget(name)
        self._look()
        # Rows are cut to the width, which a page has once it was laid out.
        self.call_after_refresh(self._show_page)

    def action_look_again(self) -> None:
        self._looks.forget(self._page.name)
        self._look()

    def action_dark_or_light(self) -> None:
        self.theme = LIGHT if self.theme == DARK else DARK

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """What the palette has: only what would do something now."""
        for page in PAGES:
            yield SystemCommand(page.title, f"Show this page (key {page.key})", partial(self.action_go, page.name))
        for action, title, text in COMMANDS:
            if self.check_action(action, ()):
                yield SystemCommand(title, text, getattr(self, f"action_{action}"))
        for act in ACTS:
            if self.check_action("act", (act.name,)):
                yield SystemCommand(act.title, f"{act.text} (key {act.key})", partial(self.action_act, act.name))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys that would do nothing now are shown dimmed."""
        state = self._view.machine.state if self._view and self._connected else ""
        if action == "look_again":
            # Not shown where it has no use: the other pages follow the node by themselves.
            return self._looks.slow(self._page.name)
        if action == "edit_policy":
            ready = self._connected and self._looks.known.policy is not None
            return False if self._page.name != "policy" else True if ready else None
        if action == "act":
            return self._check_act(str(parameters[0]))
        useful = {"pause": state == "lends", "resume": state == "paused", "pause_now": state in ("lends", "paused")}
        return True if useful.get(action, True) else None

    def _check_act(self, name: str) -> bool | None:
        act = next(each for each in ACTS if each.name == name)
        if act.page != self._page.name:
            return False
        is_ready = self._connected and (not act.of_chosen or act.page in self._chosen)
        return True if is_ready else None

    def action_pause(self) -> None:
        self._tell(control.Pause)

    def action_resume(self) -> None:
        self._tell(control.Resume)

    def action_pause_now(self) -> None:
        from potluck_tui.dialogs import Confirm

        running = sum(worker.state == "running" for worker in self._history[-1].workers)
        ends = f"{counted(running, 'input')} of others would start again elsewhere."
        self.push_screen(
            Confirm(f"Pause now? {ends if running else 'Nothing runs for others.'}"), self._pause_now_answered
        )

    def _pause_now_answered(self, yes: bool | None) -> None:
        if yes:
            self._tell(lambda number: control.Pause(number, now=True))

    def latest(self) -> control.Status:
        """The node as it was last seen."""
        return self._history[-1]

    def action_edit_policy(self) -> None:
        """Open the policy's text, as it is written now."""
        from potluck_tui.editor import PolicyEditor

        told = self._looks.known.policy
        if told:
            self.push_screen(PolicyEditor(self._link, self, told.text), self._policy_edited)

    def _policy_edited(self, changed: bool | None) -> None:
        if changed:
            self.action_look_again()
            self._link.hurry()

    def action_help(self) -> None:
        from potluck_tui.dialogs import Help
        from potluck_tui.explained import explained

        self.push_screen(Help(explained(self._page.name, PAGES[-1].key)))

    def _tell(self, make: Callable[[int], wire.Message]) -> None:
        self.run_worker(self._told(make, control.Done), group="tell")

    async def _told(
        self,
        make: Callable[[int], wire.Message],
        kind: type[wire.Message],
        say: Callable[[wire.Message], str] = lambda answer: "",
        timeout_s: float | None = None,
    ) -> None:
        try:
            answer = await self._link.ask(make, kind, timeout_s)
            self._link.hurry()
            if text := say(answer):
                self.notify(text, markup=False)
                # Only then: looking again may be work, and a pause changes nothing of what a page looked up.
                self.action_look_again()
        except Error as error:
            self.notify(str(error), title="The node did not do it", severity="error", markup=False)


def _lost_text(error: Error, retry_s: float, stale_s: float | None) -> str:
    again = f"Trying again in {retry_s:g} s."
    if stale_s is None:
        return "\n".join(
            part for part in (error.what, f"{error.fix} This screen then fills by itself. {again}") if part
        )
    old = f" Figures are {age(round(stale_s * 1e6))} old." if stale_s > STALE_S else ""
    return f"{error.what}{old}\n{error.fix} {again}"
