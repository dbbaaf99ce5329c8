"""What lies over the screen for a moment; loaded when it is first asked for."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

HELP = """\
[b]Keys[/b]
  [b]p[/b]  Pause: take no new work; what runs is finished.
  [b]n[/b]  Pause now: also end what runs. Asks first.
  [b]r[/b]  Resume: take work again.
  [b]q[/b]  Leave this screen. The node goes on; [b]potluck down[/b] ends it.

[b]This machine[/b]
  What you lend, and how much of it is in use. Workers that wait
  unused do not count: they make room as soon as it is needed.

[b]Workers[/b]
  Each runs one function for one caller, in a sandbox. Then its
  state, and for how long: [b]starting[/b] until the function is loaded,
  [b]running[/b] an input, or [b]ready, unused[/b] until it is ended.

[b]Calls from here[/b]
  Your own calls: inputs done of those sent so far, inputs a second
  over the last few seconds, and what the call waits for.

[b]Peers[/b]
  Machines of your mesh. [b]2 free[/b]: two workers could start there now;
  [b]busy[/b]: none; [b]paused[/b]: by its owner. Then what it lends, how far
  away it is, and why it is not used, if so.

[b]Ledger[/b]
  Time that workers were leased, from receipts that the provider,
  and in the usual case the caller too, has signed. [b]Given[/b] to
  others, [b]used[/b] from others; balance is given less used.
  [b]potluck ledger verify[/b] checks every receipt on this machine.
"""


class Help(ModalScreen[None]):
    """Explains each figure."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,q", "dismiss", "Close")]

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog") as box:
            box.border_title = "Help"
            box.border_subtitle = "↑ ↓ scroll · Esc close"
            yield Static(HELP)


class Confirm(ModalScreen[bool]):
    """A question with yes or no; no unless yes is said."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "dismiss(True)", "Yes"),
        Binding("n,escape,q", "dismiss(False)", "No"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        box = Static(self._question, markup=False, classes="dialog")
        box.border_subtitle = "y yes · n no"
        yield box
