"""Pictures of the terminal's pages, from the demo at one moment: for the docs, and for a test to compare with.

Run: make pictures
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from html import escape
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from rich.cells import cell_len
from rich.color import Color
from rich.segment import Segment
from tests.tui.screen import PATIENCE_S, running

from potluck_tui.app import DARK, LIGHT, PotluckApp
from potluck_tui.demo import Demo, load
from potluck_tui.pages import PAGES

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
# While the terminal was on its first page, with everything at work.
MOMENT_US = 15_000_000
SIZES = ((80, 24), (120, 40))
THEMES = {"dark": DARK, "light": LIGHT}
# Of one cell and one line, in pixels.
WIDTH, HEIGHT, FONT, RISE = 8, 17, 14, 4


class Run(NamedTuple):
    """Cells of one look in a line, from `at` on."""

    at: int
    text: str
    colour: str
    ground: str
    bold: bool


def names() -> list[str]:
    """Of all pictures."""
    return [f"{page.name}-{width}x{height}-{theme}" for page in PAGES for width, height in SIZES for theme in THEMES]


async def pictures(size: tuple[int, int], theme: str) -> dict[str, str]:
    """All pages, by the names of their pictures."""
    made = {}
    async with running(None, size, Demo(load(), MOMENT_US)) as (app, pilot):
        app.theme = THEMES[theme]
        for page in PAGES:
            await pilot.press(page.key)
            await settled(app, pilot, page.name)
            made[f"{page.name}-{size[0]}x{size[1]}-{theme}"] = svg(app)
    return made


async def settled(app: PotluckApp, pilot, page: str) -> None:
    """Wait until what the page needs is there, and nothing moves any more."""
    before, looks = "", app._looks
    async with asyncio.timeout(PATIENCE_S):
        while looks._under_way or looks.due(page) or not app._view or before != svg(app):
            before = svg(app)
            # What was laid out when the page was not in sight yet had another width.
            app._show_page()
            await pilot.pause(0.1)


def runs(line: list[Segment]) -> Iterator[Run]:
    at, last = 0, None
    for segment in line:
        style = segment.style
        colour, ground = (_hex(each) for each in ((style and style.color), (style and style.bgcolor)))
        if style and style.reverse:
            colour, ground = ground, colour
        fresh = Run(at, segment.text, colour, ground, bool(style and style.bold))
        at += cell_len(segment.text)
        if last and last[2:] == fresh[2:]:
            last = last._replace(text=last.text + fresh.text)
            continue
        if last:
            yield last
        last = fresh
    if last:
        yield last


def _hex(colour: Color | None) -> str:
    return colour.get_truecolor().hex if colour else ""


def svg(app: PotluckApp) -> str:
    """The screen as it is. Smaller than rich's, and without its fonts from elsewhere."""
    lines = [list(runs(list(strip))) for strip in app.screen._compositor.render_strips()]
    width, height = app.size.width * WIDTH, app.size.height * HEIGHT
    grounds: Counter[str] = Counter()
    for run in (run for line in lines for run in line):
        grounds[run.ground] += cell_len(run.text)
    ground = grounds.most_common(1)[0][0]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">',
        f"<style>text{{font:{FONT}px monospace;white-space:pre}}.b{{font-weight:bold}}</style>",
        f'<rect width="{width}" height="{height}" fill="{ground}"/>',
    ]
    for number, line in enumerate(lines):
        parts += [*_grounds(line, number, ground), *(_words(run, number) for run in line if run.text.strip())]
    return "\n".join([*parts, "</svg>\n"])


def _grounds(line: list[Run], number: int, usual: str) -> Iterator[str]:
    """What lies behind the words, where it is not as everywhere."""
    for ground, together in groupby(line, key=lambda run: run.ground):
        each = list(together)
        x, width = each[0].at * WIDTH, sum(cell_len(run.text) for run in each) * WIDTH
        if ground != usual:
            yield f'<rect x="{x}" y="{number * HEIGHT}" width="{width}" height="{HEIGHT}" fill="{ground}"/>'


def _words(run: Run, number: int) -> str:
    text = run.text.strip()
    x = (run.at + len(run.text) - len(run.text.lstrip())) * WIDTH
    bold = ' class="b"' if run.bold else ""
    where = f'x="{x}" y="{(number + 1) * HEIGHT - RISE}" textLength="{cell_len(text) * WIDTH}"'
    return f'<text{bold} {where} fill="{run.colour}">{escape(text, quote=False)}</text>'


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*-*x*-*.svg"):
        old.unlink()
    for size in SIZES:
        for theme in THEMES:
            for name, picture in asyncio.run(pictures(size, theme)).items():
                (FOLDER / f"{name}.svg").write_text(picture)


if __name__ == "__main__":
    main()
