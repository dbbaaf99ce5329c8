"""Fitting rows into the width and height there is. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from rich.cells import cell_len, set_cell_size

T = TypeVar("T")

GAP = 2
# Lines of the first page that are always there: machine, pages, sentence (two), five headings, three of ledger, keys.
FIXED_LINES = 13
# From this height on, a blank line parts each section from the next.
TALL_LINES = 32
GAPS = 4
# Wide enough to tell a tenth from a quarter, and leaves 50 columns of 80 for words.
BAR_WIDTH = 20


def align(rows: Sequence[Sequence[str]], width: int) -> list[list[str]]:
    """Pad the cells of each column to one width; when a row is wider than `width`, the widest columns are cut."""
    if not rows:
        return []
    widths = [max(cell_len(cell) for cell in column) for column in zip(*rows, strict=True)]
    # A column without content takes no gap either.
    used = sum(1 for each in widths if each)
    while sum(widths) + GAP * (used - 1) > width and max(widths) > 1:
        widths[widths.index(max(widths))] -= 1
    return [[_cell(cell, each) for cell, each in zip(row, widths, strict=True) if each] for row in rows]


def _cell(text: str, width: int) -> str:
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(text, width - 1) + "…"


def share(wanted: Sequence[int], room: int) -> list[int]:
    """Divide `room` lines: one for everybody, then one each in turn to those that want more."""
    given = [1] * len(wanted)
    for _ in range(room - len(wanted)):
        short = [index for index, want in enumerate(wanted) if given[index] < want]
        if not short:
            break
        given[min(short, key=lambda index: given[index])] += 1
    return given


def cut(rows: Sequence[T], room: int) -> tuple[Sequence[T], int]:
    """The rows that fit into `room` lines, and how many do not: to say so takes a line itself."""
    if len(rows) <= room:
        return rows, 0
    shown = rows[: max(0, room - 1)]
    return shown, len(rows) - len(shown)
