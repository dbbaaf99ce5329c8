"""`potluck dict …` and `potluck queue …`: what programs share on this node, as Modal's commands have it."""

from __future__ import annotations

import functools
import itertools
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from potluck.cli.show import as_json, print_json, print_table, printable
from potluck.dicts import Dict
from potluck.queues import Queue

if TYPE_CHECKING:
    from potluck.handles import Handle, Manager

# Of a key or value in a table, characters.
SHOWN_MAX = 80

yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask first.")
partition_option = click.option("-p", "--partition", default=None, help="A partition, instead of the one without name.")


@click.group("dict")
def dict_() -> None:
    """Dicts on this node, and what is in them."""


@click.group()
def queue() -> None:
    """Queues on this node, and what is in them."""


def _named(objects: Manager[Any]) -> Callable[[click.Group], None]:
    """The commands that both have."""

    @click.command("list")
    @as_json
    def list_all(as_json: bool) -> None:
        """All that have a name, the newest first."""
        found = [(each.name, each.info().created_at, each.len(**_TOTAL[type(each)])) for each in objects.list()]
        if as_json:
            print_json([{"name": name, "created_at": at.isoformat(), "len": count} for name, at, count in found])
            return
        rows = [(name, f"{at.astimezone():%Y-%m-%d %H:%M}", str(count)) for name, at, count in found]
        print_table(("name", "made", "items"), rows, "None. They are made by programs, or by `create`.")

    @click.command("create")
    @click.argument("name")
    def create(name: str) -> None:
        """Make one of this NAME, unless there is one."""
        objects.create(name, allow_existing=True)

    @click.command("delete")
    @click.argument("name")
    @click.option("--allow-missing", is_flag=True, help="It need not be there.")
    @yes_option
    def delete(name: str, allow_missing: bool, yes: bool) -> None:
        """Delete it with all that it holds."""
        _sure(yes, f"Delete {name} with all that it holds?")
        objects.delete(name, allow_missing=allow_missing)

    def add_to(group: click.Group) -> None:
        for command in (list_all, create, delete):
            group.add_command(command)

    return add_to


_TOTAL: dict[type[Handle], dict[str, bool]] = {Dict: {}, Queue: {"total": True}}
_named(Dict.objects)(dict_)
_named(Queue.objects)(queue)


@dict_.command("clear")
@click.argument("name")
@yes_option
def clear_dict(name: str, yes: bool) -> None:
    """Remove all entries."""
    _sure(yes, f"Remove all entries of {name}?")
    Dict.from_name(name).clear()


@dict_.command("get")
@click.argument("name")
@click.argument("key")
@as_json
def get(name: str, key: str, as_json: bool) -> None:
    """Print the value of KEY, which is taken as text."""
    found = Dict.from_name(name)
    try:
        value = found[key]
    except KeyError:
        raise click.ClickException(f"{name} has no key {key!r}.") from None
    print_json(_plain(value)) if as_json else click.echo(_text(value))


@dict_.command("items")
@click.argument("name")
@click.argument("n", default=20, type=click.IntRange(1))
@click.option("-a", "--all", "whole", is_flag=True, help="Not only the first N.")
@click.option("-r", "--repr", "as_code", is_flag=True, help="Show keys and values as Python writes them.")
@as_json
def items(name: str, n: int, whole: bool, as_code: bool, as_json: bool) -> None:
    """Print the entries: the first N, in no particular order; with --json all of them."""
    found = Dict.from_name(name).items()
    if as_json:
        print_json([{"key": _plain(key), "value": _plain(value)} for key, value in found])
        return
    taken = list(found if whole else itertools.islice(found, n + 1))
    more = len(taken) > n and not whole
    show = functools.partial(_short, as_code=as_code)
    rows = [(show(key), show(value)) for key, value in (taken[:n] if more else taken)]
    print_table(("key", "value"), [*rows, ("...", "...")] if more else rows, "No entries.")


@queue.command("clear")
@click.argument("name")
@partition_option
@click.option("-a", "--all", "whole", is_flag=True, help="All partitions.")
@yes_option
def clear_queue(name: str, partition: str | None, whole: bool, yes: bool) -> None:
    """Remove all items of a partition."""
    _sure(yes, f"Remove the items of {name}?")
    Queue.from_name(name).clear(partition=partition, all=whole)


@queue.command("peek")
@click.argument("name")
@click.argument("n", default=1, type=click.IntRange(1))
@partition_option
@as_json
def peek(name: str, n: int, partition: str | None, as_json: bool) -> None:
    """Print the next N items, which stay."""
    found = list(itertools.islice(Queue.from_name(name).iterate(partition=partition), n))
    if as_json:
        print_json([_plain(each) for each in found])
        return
    for each in found:
        click.echo(_text(each))


@queue.command("len")
@click.argument("name")
@partition_option
@click.option("-t", "--total", is_flag=True, help="Of all partitions together.")
def length(name: str, partition: str | None, total: bool) -> None:
    """Print how many items there are."""
    click.echo(Queue.from_name(name).len(partition=partition, total=total))


def _sure(yes: bool, question: str) -> None:
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("Nobody is there to be asked; write --yes.")
    if not yes:
        click.confirm(question, abort=True)


def _text(value: object) -> str:
    """What a worker may have put there, without the power to command a terminal."""
    return "\n".join(map(printable, str(value).split("\n")))


def _short(value: object, as_code: bool) -> str:
    text = repr(value) if as_code else str(value)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}..."


def _plain(value: Any) -> Any:
    """As it is where JSON has it, else as Python writes it."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return repr(value)
    return value
