"""The first frame: what the node says now, written with plain escapes before textual is loaded, which takes longer."""

from __future__ import annotations

import shutil
import sys
import termios
from collections.abc import Iterator, Sequence
from dataclasses import replace
from textwrap import wrap
from typing import Any

from rich.cells import set_cell_size

from potluck_tui.fit import BAR_WIDTH, FIXED_LINES, GAP, GAPS, TALL_LINES, align, cut, share
from potluck_tui.gpus import GPU_BAR_WIDTH, MODELS_WIDTH, device_cells, gpu_devices, today
from potluck_tui.model import Device, Listing, View, make_view
from potluck_tui.pages import PAGES
from potluck_tui.source import Glance, Source
from potluck_tui.words import bar

SENTENCE_LINES = 2
LOOKING = "Looking for the node of this machine …"
NOTHING_LENT = "Nothing is lent. To lend, restart the node with: potluck up --offer"

# xterm's control sequences: the other screen, cleared, without a cursor; bold for one line; and back.
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J", "\x1b[?25h\x1b[?1049l"
BOLD, PLAIN = "\x1b[1m", "\x1b[0m"


class FirstFrame:
    """While it is entered, the frame is in sight, and keys wait for the app instead of being echoed."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._before: list[Any] = []

    def __enter__(self) -> None:
        glance = self._source.glance()
        self._before = termios.tcgetattr(sys.stdin)
        quiet = [*self._before]
        quiet[3] &= ~(termios.ECHO | termios.ICANON)
        termios.tcsetattr(sys.stdin, termios.TCSANOW, quiet)
        size = shutil.get_terminal_size()
        sys.stdout.write(ENTER + "\r\n".join(painted(frame(glance, size.columns, size.lines))))
        sys.stdout.flush()

    def __exit__(self, kind: object, *_: object) -> None:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, self._before)
        if kind is not None:
            sys.stdout.write(LEAVE)
            sys.stdout.flush()


def painted(lines: Sequence[str]) -> Iterator[str]:
    """Headings stand out."""
    for number, line in enumerate(lines):
        yield f"{BOLD}{line}{PLAIN}" if number == 0 or line.startswith("─") else line


def frame(glance: Glance | None, width: int, height: int) -> list[str]:
    """At most `height` lines of at most `width` cells: the app's first page, but for its keys and the history."""
    if glance is None:
        return ["", f"  {LOOKING}"]
    view = make_view(glance.status)
    given, *others = view.ledger
    view = replace(
        view,
        devices=(*view.devices, *gpu_devices(glance.status, glance.gpus, None)) if glance.status.offering else (),
        ledger=((*given[:-1], given[-1] + today(glance.gpus)), *others),
    )
    lines = [*_head(view, width), *_lists(view, width, height)]
    return [set_cell_size(line, width).rstrip() for line in lines[: height - 1]]


def _head(view: View, width: int) -> list[str]:
    name, about = f"{view.machine.name} · mesh {view.machine.mesh}", view.machine.about
    tabs = " ".join(f" {page.key} {page.title} " for page in PAGES)
    said = [f" {line}" for line in wrap(view.machine.sentence, max(1, width - 2))][:SENTENCE_LINES]
    top = f" {set_cell_size(name, max(1, width - len(about) - 2))}{about} "
    return [top, tabs, *said, *[""] * (SENTENCE_LINES - len(said))]


def _lists(view: View, width: int, height: int) -> Iterator[str]:
    listings = {"Workers": view.workers, "Calls from here": view.calls, "Peers": view.peers}
    tall = height >= TALL_LINES
    wanted = [len(view.devices), *(len(listing.rows) for listing in listings.values())]
    rooms = share(wanted, height - FIXED_LINES - (GAPS if tall else 0))
    sections = [("This machine", _devices(view.devices, width - 2, rooms[0]))]
    sections += [
        (title, _listing(listing, width - 2, room))
        for (title, listing), room in zip(listings.items(), rooms[1:], strict=True)
    ]
    sections.append(("Ledger", _rows(view.ledger, width - 2)))
    for title, lines in sections:
        yield f"─ {title} ".ljust(width, "─")
        yield from (f" {line}" for line in lines)
        if tall:
            yield ""


def _devices(devices: Sequence[Device], width: int, room: int) -> list[str]:
    if not devices:
        return [NOTHING_LENT]
    shown, hidden = cut(devices, room)
    name_width = max((len(each.name) for each in shown), default=0)
    plain, gpus = [each for each in shown if not each.cells], [each for each in shown if each.cells]
    return _more([*_bars(plain, width, name_width, BAR_WIDTH), *_bars(gpus, width, name_width, GPU_BAR_WIDTH)], hidden)


def _bars(devices: Sequence[Device], width: int, name_width: int, bar_width: int) -> Iterator[str]:
    rows = [device_cells(device, width >= MODELS_WIDTH, name_width) for device in devices]
    for device, (name, *cells) in zip(devices, align(rows, width - bar_width - GAP), strict=True):
        yield (" " * GAP).join((name, bar(device.used, device.total, bar_width), *cells))


def _listing(listing: Listing, width: int, room: int) -> list[str]:
    if not listing.rows:
        return [listing.empty]
    rows, hidden = cut(listing.rows, room)
    return _more(_rows(rows, width), hidden)


def _rows(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    return [(" " * GAP).join(cells) for cells in align(rows, width)]


def _more(lines: list[str], hidden: int) -> list[str]:
    return [*lines, f"… {hidden} more, in a taller window"] if hidden else lines
