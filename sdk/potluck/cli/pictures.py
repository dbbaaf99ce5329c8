"""Bars as a picture: an SVG document, or a PNG file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

from potluck.cli.show import printable
from potluck.errors import ExecutionError

# Lines of a picture; more cannot be read.
PICTURE_LINES = 40
_WIDTH, _HEIGHT, _NAMES, _FIGURES = 800, 24, 260, 120
_TOP, _SIZE, _COLOUR = 32, 13, "#3b7dd8"
# Of a name, characters: what fits beside the bars.
_NAME_MAX = 36
# Dots of a PNG for each of the picture's units: sharp on today's screens.
_SCALE = 2


class Bar(NamedTuple):
    """`value` is in the unit of the others, `text` as it is written beside the bar."""

    name: str
    value: int
    text: str


class _Placed(NamedTuple):
    name: str
    top: int
    width: int
    text: str


def _placed(bars: Sequence[Bar]) -> list[_Placed]:
    shown = bars[:PICTURE_LINES]
    most = max((bar.value for bar in shown), default=0) or 1
    space = _WIDTH - _NAMES - _FIGURES
    return [
        _Placed(printable(bar.name)[:_NAME_MAX], _TOP + number * _HEIGHT, max(1, space * bar.value // most), bar.text)
        for number, bar in enumerate(shown)
    ]


def svg(title: str, bars: Sequence[Bar]) -> str:
    """The largest of them, as a document."""
    rows = [f'<text x="8" y="20" font-weight="bold">{escape(title)}</text>']
    placed = _placed(bars)
    for name, top, width, text in placed:
        rows.append(f'<text x="8" y="{top + 16}">{escape(name)}</text>')
        rows.append(f'<rect x="{_NAMES}" y="{top + 4}" width="{width}" height="16" fill="{_COLOUR}"/>')
        rows.append(f'<text x="{_NAMES + width + 8}" y="{top + 16}">{escape(text)}</text>')
    size = f'width="{_WIDTH}" height="{_height(placed)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="{_SIZE}">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *rows, "</svg>", ""])


def png(title: str, bars: Sequence[Bar], file: Path) -> None:
    """The same, written to a file, with Pillow's own font. Raises `ExecutionError` without Pillow."""
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        raise ExecutionError(
            "PNG pictures need Pillow.", fix="pip install 'potluck[pictures]', or use --svg."
        ) from None
    placed = _placed(bars)
    image = Image.new("RGB", (_WIDTH * _SCALE, _height(placed) * _SCALE), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(_SIZE * _SCALE)

    def write(x: int, top: int, text: str) -> None:
        draw.text((x * _SCALE, top * _SCALE), text, fill="black", font=font)

    write(8, 6, title)
    for name, top, width, text in placed:
        write(8, top + 2, name)
        draw.rectangle([each * _SCALE for each in (_NAMES, top + 4, _NAMES + width, top + 20)], fill=_COLOUR)
        write(_NAMES + width + 8, top + 2, text)
    image.save(file, "PNG")


def _height(placed: Sequence[_Placed]) -> int:
    return 40 + len(placed) * _HEIGHT
