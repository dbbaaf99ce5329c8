"""The parts of the screen. Everything is shown as plain text: no markup is read from what other machines say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap

from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from potluck_tui.first import NOTHING_LENT
from potluck_tui.fit import BAR_WIDTH, GAP, align, cut
from potluck_tui.model import Device, Listing
from potluck_tui.pages import PAGES, Block, Note, Notes, Page
from potluck_tui.words import bar

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

    def show_whole(self, listing: Listing) -> None:
        """All rows, under their headings; for pages that scroll."""
        if not listing.rows:
            self.show(Content.styled(listing.empty, "dim"))
            return
        rows = [listing.head, *listing.rows] if listing.head else listing.rows
        lines = [_line(cells) for cells in align(rows, self._width)]
        if listing.head:
            lines[0] = Content.styled(lines[0].plain, "dim")
        if listing.left_out:
            lines.append(Content.styled(f"… {listing.left_out} more", "dim"))
        self._show_lines(lines, 0)

    def show_notes(self, notes: Notes) -> None:
        """Headings with prose, broken at words."""
        if not notes.notes:
            self.show(Content.styled(notes.empty, "dim"))
            return
        self.show(Content("\n").join(line for note in notes.notes for line in _note(note, self._width)))

    def show_devices(self, devices: Sequence[Device], room: int) -> None:
        """At most `room` lines, each with a bar."""
        if not devices:
            self.show(Content.styled(NOTHING_LENT, "dim"))
            return
        shown, hidden = cut(devices, room)
        cells = align([(device.name, device.words) for device in shown], self._width - BAR_WIDTH - GAP)
        self._show_lines([_device_line(*each) for each in zip(shown, cells, strict=True)], hidden)

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

    def show_blocks(self, blocks: Mapping[str, Block]) -> None:
        """What `make_page` made of this page."""
        for name, block in blocks.items():
            section = self.query_one(f"#{name}", Section)
            if isinstance(block, Notes):
                section.show_notes(block)
            else:
                section.show_whole(block)


def _note(note: Note, width: int) -> list[Content]:
    mark, colour = MARKS[note.state]
    lines = [each for line in note.lines for each in wrap(line, max(1, width - len(mark) - 1))]
    return [Content.styled(f"{mark} {note.title}", f"bold {colour}"), *(Content(f"  {each}") for each in lines)]


def _line(cells: Sequence[str]) -> Content:
    first, *rest = cells
    return Content.assemble((first, "bold"), *(" " * GAP + cell for cell in rest))


def _device_line(device: Device, cells: Sequence[str]) -> Content:
    name, words = cells
    full = bar(device.used, device.total, BAR_WIDTH)
    filled = full.count("█")
    return Content.assemble(
        (name, "bold"), " " * GAP, (full[:filled], "$primary"), (full[filled:], "$surface-lighten-2"), " " * GAP, words
    )
