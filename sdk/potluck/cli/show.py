"""How commands show what they found: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
import msgspec

if TYPE_CHECKING:
    from rich.table import Table

as_json = click.option("--json", "as_json", is_flag=True, help="For programs.")


def named(struct: msgspec.Struct) -> dict[str, object]:
    """A struct with its fields' names, for JSON; on the wire it is an array."""
    return {name: _builtin(getattr(struct, name)) for name in struct.__struct_fields__}


def _builtin(value: object) -> object:
    if isinstance(value, tuple):
        return [_builtin(each) for each in value]
    if isinstance(value, bytes):
        return value.hex()
    return named(value) if isinstance(value, msgspec.Struct) else value


def print_json(data: object) -> None:
    """One document on standard output."""
    click.echo(json.dumps(data, indent=2))


def printable(text: str) -> str:
    """What strangers call themselves and their functions, without the power to command a terminal."""
    return "".join(letter for letter in text if letter.isprintable())


def plain(text: str) -> str:
    """The same for a cell of a table, where brackets mean something."""
    from rich.markup import escape

    return escape(printable(text))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> Table:
    """One row for each thing."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    heading = f"[bold]{title}[/bold]" if title else None
    made = Table(title=heading, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, show_header=any(columns))
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*map(plain, row))
    return made


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], nothing: str) -> None:
    """A table, or the words for there being nothing."""
    from rich.console import Console

    if rows:
        Console().print(table(columns, rows))
    else:
        click.echo(nothing)


def ago(at_us: int, now_us: int) -> str:
    """How long something is ago, as precisely as people ask; "" when nobody knows."""
    if not at_us:
        return ""
    seconds = max(0, now_us - at_us) // 1_000_000
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
