"""`potluck ledger report`: what was given and used, summed up, as a table, bars, CSV, JSON or a picture."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from potluck.cli import pictures
from potluck.cli.bench import compute
from potluck.cli.pictures import Bar
from potluck.cli.show import as_json, print_json, print_table, printable

if TYPE_CHECKING:
    from potluck_ledger.entries import Receipt
    from potluck_ledger.report import Line

WAYS = ("user", "function", "app", "gpu", "day")
# A bar of this many cells is the largest; what fits beside names and figures in 80 columns.
BAR_CELLS = 40


@click.command("report")
@click.option("--by", type=click.Choice(WAYS), default="user", show_default=True, help="What each line is of.")
@click.option("--csv", "as_csv", is_flag=True, help="For spreadsheets.")
@click.option("--chart", is_flag=True, help="Bars instead of figures.")
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="Write bars to this file, as a picture.")
@click.option("--png", type=click.Path(dir_okay=False, path_type=Path), help="The same as a PNG file.")
@as_json
def report(by: str, as_csv: bool, chart: bool, svg: Path | None, png: Path | None, as_json: bool) -> None:
    """What was given and used, by user, function, app, GPU model or day (UTC). Only what both sides signed counts."""
    from potluck.cli.ledger import own_receipts
    from potluck_ledger.report import summed

    owner, receipts = own_receipts()
    lines = summed(owner, by, receipts)
    if svg or png:
        _draw(f"Leased seconds by {by}", lines, svg, png)
    elif as_json:
        print_json([vars(line) for line in lines])
    elif as_csv:
        _write_csv(lines)
    elif chart:
        print_table((by, "seconds", ""), [_bar(line, lines) for line in lines], "No receipts.")
    else:
        columns: tuple[str, ...] = (by, "leases", "inputs", "given", "used", "GPU time", "busy", "energy", "not signed")
        rows = [_row(line) for line in lines]
        if by == "gpu":
            columns, rows = (*columns, "claimed"), _with_claims(lines, rows)
        print_table(columns, rows, "No receipts.")
        if by == "gpu":
            tell_outliers(receipts)


def _with_claims(lines: Sequence[Line], rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """With what machines that are up usually say of the speed of one such device."""
    from potluck.cli.ledger import claimed_speeds
    from potluck_ledger.claims import median_of
    from potluck_ledger.report import NO_GPU

    claims = claimed_speeds()
    found = [median_of(claims, "" if line.name == NO_GPU else line.name) for line in lines]
    texts = (compute(line.name != NO_GPU, each) if each else "" for line, each in zip(lines, found, strict=True))
    return [(*row, text) for row, text in zip(rows, texts, strict=True)]


def tell_outliers(receipts: Sequence[tuple[Receipt, bool]]) -> None:
    """Who bills more than others for the same, on one GPU model."""
    from potluck_ledger.audit import outliers

    for finding in sorted(outliers(receipt for receipt, is_whole in receipts if is_whole)):
        click.echo(printable(f"{finding.kind}: {finding.text}"))


def _draw(title: str, lines: Sequence[Line], svg: Path | None, png: Path | None) -> None:
    bars = [_picture(line) for line in lines]
    if svg:
        svg.write_text(pictures.svg(title, bars))
    if png:
        pictures.png(title, bars, png)
    files = " and ".join(str(file) for file in (svg, png) if file)
    click.echo(f"{min(len(bars), pictures.PICTURE_LINES)} of {len(bars)} lines are drawn, the largest: {files}")


def _write_csv(lines: Sequence[Line]) -> None:
    from potluck_ledger.report import Line

    names = tuple(vars(Line("")))
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**vars(line), "name": _cell(line.name)} for line in lines)


def _cell(name: str) -> str:
    """Spreadsheets run what begins so; a stranger chose the name."""
    text = printable(name)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _row(line: Line) -> tuple[str, ...]:
    times = (f"{us / 1e6:.1f} s" if us else "" for us in (line.given_us, line.used_us, line.gpu_us, line.busy_us))
    energy = f"{line.energy_mj / 1000:.1f} J" if line.energy_mj else ""
    unsigned = f"{line.unsigned_us / 1e6:.1f} s" if line.unsigned_us else ""
    return (line.name, str(line.leases), str(line.inputs), *times, energy, unsigned)


def _leased(line: Line) -> int:
    return line.given_us + line.used_us


def _bar(line: Line, lines: Sequence[Line]) -> tuple[str, str, str]:
    most = max(_leased(each) for each in lines) or 1
    return line.name, f"{_leased(line) / 1e6:.1f}", "█" * max(1, round(BAR_CELLS * _leased(line) / most))


def _picture(line: Line) -> Bar:
    return Bar(line.name, _leased(line), f"{_leased(line) / 1e6:.1f} s")
