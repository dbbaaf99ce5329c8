"""The parts of the screen. Everything is shown as plain text: no markup is read from what other machines say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.events import Click
from textual.geometry import Region
from textual.widgets import Static

from potluck.wire.history import HistoryTold
from potluck_tui.first import NOTHING_LENT
from potluck_tui.fit import BAR_WIDTH, GAP, align, cut
from potluck_tui.gpus import GPU_BAR_WIDTH, MODELS_WIDTH, day_graph, device_cells
from potluck_tui.model import Device, Listing
from potluck_tui.pages import PAGES, Block, Note, Notes, Page
from potluck_tui.words import bar

CHOSEN = "› "
# Above the rows of which one is chosen.
HEAD_LINES = 1
MARKS = {"good": ("✓", "$text-success"), "weak": ("!", "$text-warning"), "missing": ("✗", "$text-error")}


class Words(Static):
    """Text that is laid out again only when it has changed: the node is asked far more often than it has news."""

    def __init__(self, name: str, text: str = "") -> None:
        super().__init__(text, id=name, markup=False)
        self._last = Content(text)

    def show(self, content: Content) -> None:
        if not content.is_same(self._last):
            self._last = content
            self.update(content)


class Section(Words):
    """A heading with lines below it."""

    def __init__(self, title: str, name: str) -> None:
        super().__init__(name)
        self.border_title = f" {title} "

    def show_listing(self, listing: Listing, room: int) -> None:
        """At most `room` lines."""
        if not listing.rows:
            self.show(Content.styled(listing.empty, "dim"))
            return
        rows, hidden = cut(listing.rows, room)
        self._show_lines([_line(cells) for cells in align(rows, self._width)], hidden)

    def show_whole(self, listing: Listing, chosen: str = "") -> None:
        """All rows, under their headings; for pages that scroll. The one with the key `chosen` is marked."""
        if not listing.rows:
            self.show(Content.styled(listing.empty, "dim"))
            return
        rows = [listing.head, *listing.rows] if listing.head else listing.rows
        margin = len(CHOSEN) if listing.keys else 0
        lines = [_line(cells) for cells in align(rows, self._width - margin)]
        if listing.head:
            lines[0] = Content.styled(" " * margin + lines[0].plain, "dim")
        for number, key in enumerate(listing.keys, len(lines) - len(listing.rows)):
            mark = (CHOSEN, "$primary") if key == chosen else " " * margin
            lines[number] = Content.assemble(mark, lines[number])
        if listing.left_out:
            lines.append(Content.styled(f"… {listing.left_out} more", "dim"))
        self._show_lines(lines, 0)

    def show_notes(self, notes: Notes) -> None:
        """Headings with prose, broken at words."""
        if not notes.notes:
            self.show(Content.styled(notes.empty, "dim"))
            return
        self.show(Content("\n").join(line for note in notes.notes for line in _note(note, self._width)))

    def show_devices(self, devices: Sequence[Device], room: int, history: HistoryTold | None = None) -> None:
        """At most `room` lines, each with a bar; with a `history`, one more for each GPU, with its load over a day."""
        if not devices:
            self.show(Content.styled(NOTHING_LENT, "dim"))
            return
        shown, hidden = cut(devices, room)
        lines: list[Content] = []
        name_width = max((len(each.name) for each in shown), default=0)
        for kind in ([each for each in shown if not each.cells], [each for each in shown if each.cells]):
            lines += self._bars(kind, history, name_width)
        self._show_lines(lines, hidden)

    def _bars(self, devices: Sequence[Device], history: HistoryTold | None, name_width: int) -> list[Content]:
        if not devices:
            return []
        width = GPU_BAR_WIDTH if devices[0].cells else BAR_WIDTH
        models = self._width >= MODELS_WIDTH and history is None
        rows = [device_cells(device, models, name_width) for device in devices]
        lines: list[Content] = []
        for device, cells in zip(devices, align(rows, self._width - width - GAP), strict=True):
            lines.append(_device_line(device, cells, width))
            if device.cells and history:
                lines.append(_day_line(device, history, self._width, name_width))
        return lines

    def show_rows(self, rows: Sequence[Sequence[str]]) -> None:
        """All rows, however many."""
        self._show_lines([_line(cells) for cells in align(rows, self._width)], 0)

    def _show_lines(self, lines: list[Content], hidden: int) -> None:
        if hidden:
            lines.append(Content.styled(f"… {hidden} more, in a taller window", "dim"))
        self.show(Content("\n").join(lines))

    @property
    def _width(self) -> int:
        return self.content_size.width


class Tabs(Words):
    """The pages with their keys; a click goes there too."""

    def mark(self, current: str) -> None:
        """Show which page is in sight."""
        self.show(Content.from_markup(" ".join(_tab(page, page.name == current) for page in PAGES)))


def _tab(page: Page, current: bool) -> str:
    label = f" [b]{page.key}[/b] {page.title} "
    return f"[reverse]{label}[/reverse]" if current else f"[@click=app.go('{page.name}')]{label}[/]"


class PageBody(VerticalScroll):
    """One page of blocks, which scrolls."""

    def __init__(self, page: Page) -> None:
        super().__init__(*(Section(title, name) for name, title in page.blocks.items()), id=page.name, classes="page")

    def show_blocks(self, blocks: Mapping[str, Block], chosen: str = "") -> None:
        """What `make_page` made of this page, with the row of this key marked."""
        for name, block in blocks.items():
            section = self.query_one(f"#{name}", Section)
            if isinstance(block, Notes):
                section.show_notes(block)
            else:
                section.show_whole(block, chosen)

    def show_row(self, name: str, row: int) -> None:
        """Scroll so far that a row of a block is in sight."""
        # Its border and its head are above it.
        at = self.query_one(f"#{name}", Section).virtual_region.y + 2 + row
        self.scroll_to_region(Region(0, at, 1, 1), animate=False)


class ChoosingBody(PageBody):
    """Up and down choose a row, and so does a click."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "app.choose(-1)", "Up", show=False),
        Binding("down,j", "app.choose(1)", "Down", show=False),
    ]

    def __init__(self, page: Page) -> None:
        super().__init__(page)
        self._chooses = page.chooses

    async def on_click(self, event: Click) -> None:
        section = self.query_one(f"#{self._chooses}", Section)
        at = event.get_content_offset_capture(section)
        if event.widget is section and at.y >= HEAD_LINES:
            await self.run_action(f"app.choose_row({at.y - HEAD_LINES})")


def _note(note: Note, width: int) -> list[Content]:
    mark, colour = MARKS[note.state]
    lines = [each for line in note.lines for each in wrap(line, max(1, width - len(mark) - 1))]
    return [Content.styled(f"{mark} {note.title}", f"bold {colour}"), *(Content(f"  {each}") for each in lines)]


def _line(cells: Sequence[str]) -> Content:
    first, *rest = cells
    return Content.assemble((first, "bold"), *(" " * GAP + cell for cell in rest))


def _device_line(device: Device, cells: Sequence[str], width: int) -> Content:
    name, *words = cells
    full = bar(device.used, device.total, width)
    filled = full.count("█")
    text = (" " * GAP).join(words)
    return Content.assemble(
        (name, "bold"), " " * GAP, (full[:filled], "$primary"), (full[filled:], "$surface-lighten-2"), " " * GAP, text
    )


def _day_line(device: Device, history: HistoryTold, width: int, name_width: int) -> Content:
    before, after = " " * (name_width + GAP), f" 24 h · {device.words}"[: width // 2]
    graph = day_graph(device, history, width - len(before) - len(after))
    return Content.assemble(before, (graph, "$primary"), (after, "dim"))
