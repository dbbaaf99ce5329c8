"""A report as a PNG file: a curve for each quantity, over virtual time. Drawn with Pillow and its own font."""

from __future__ import annotations

from pathlib import Path

import click

from potluck_netsim.report import Curve, Report
from potluck_netsim.words import clock

_WIDTH, _HEIGHT, _LEFT, _TOP, _SIZE = 1200, 130, 90, 60, 14
_COLOURS = ("#2a7f62", "#c0392b", "#3b7dd8", "#8e44ad", "#d35400")


def draw(title: str, report: Report, file: Path) -> None:
    """Raises `click.ClickException` without Pillow."""
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        raise click.ClickException("PNG pictures need Pillow: pip install 'potluck[pictures]'.") from None
    image = Image.new("RGB", (_WIDTH, _TOP + len(report.curves) * _HEIGHT), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(_SIZE)
    pen.text((8, 8), f"{title}: {report.rows()[0][1]}", fill="black", font=font)
    pen.text((8, 30), f"success {report.success_milli / 10:.1f} %, {report.calls} calls", fill="black", font=font)
    for number, curve in enumerate(report.curves):
        top = _TOP + number * _HEIGHT
        colour = _COLOURS[number % len(_COLOURS)]
        pen.text((_LEFT, top), f"{curve.name} (to {max(curve.values, default=0):.3g})", fill=colour, font=font)
        pen.line(_points(curve, top + 22, _HEIGHT - 34), fill=colour, width=2)
        pen.text((8, top + _HEIGHT - 24), clock(0)[:5], fill="black", font=font)
        pen.text((_WIDTH - 70, top + _HEIGHT - 24), clock(report.virtual_us)[:-7], fill="black", font=font)
    image.save(file, "PNG")


def _points(curve: Curve, top: int, height: int) -> list[tuple[float, float]]:
    most = max(curve.values, default=0) or 1
    step = (_WIDTH - _LEFT - 20) / max(1, len(curve.values) - 1)
    return [(_LEFT + step * at, top + height * (1 - value / most)) for at, value in enumerate(curve.values)]
