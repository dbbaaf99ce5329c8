"""`potluck policy explain|simulate|show|set|unset|edit`, `potluck drain|panic`: when this machine works for others."""

from __future__ import annotations

import datetime
import json
import re
import time
import tomllib

import click

from potluck.cli.connect import client
from potluck.cli.show import as_json, named, print_json, print_table
from potluck.errors import InvalidError
from potluck.wire import control
from potluck.wire import policy as messages

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# Settings that are lists, which may be given with commas.
LISTS = ("exclusive", "gpu_off")


@click.group()
def policy() -> None:
    """When this machine works for others. It is set in the table [policy] of config.toml."""


@policy.command()
@click.option("--facts", is_flag=True, help="Show what is known of the machine, and every setting that counts, too.")
@as_json
def explain(facts: bool, as_json: bool) -> None:
    """Whether it works now, each reason why not, and what would change it."""
    _show(_ask({}), as_json, facts, "now")


@policy.command()
@click.option("--at", "moment", help="Local time, as 14:00 or sat-14:00.")
@click.option("--assume", "assumed", multiple=True, metavar="FACT=VALUE", help="As idle_s=0, or programs=wineserver.")
@click.option("--game", is_flag=True, help="A game runs.")
@click.option("--facts", is_flag=True, help="Show the facts that were assumed and known, too.")
@as_json
def simulate(moment: str | None, assumed: tuple[str, ...], game: bool, facts: bool, as_json: bool) -> None:
    """What it would do if things were otherwise: at another time, with a game running, on battery …"""
    assume = dict(_pair(text) for text in assumed)
    if moment:
        assume["week_minute"] = str(_week_minute(moment))
    if game:
        assume["programs"] = '["gamescope"]'
    elif "programs" in assume and not assume["programs"].startswith("["):
        assume["programs"] = f'["{assume["programs"]}"]'
    if not assume:
        raise InvalidError("Nothing is assumed.", fix="Say --at 14:00, --game, or --assume FACT=VALUE.")
    _show(_ask(assume), as_json, facts, "then")


@policy.command("show")
@as_json
def show_settings(as_json: bool) -> None:
    """The table as config.toml has it, and every setting that counts, presets included."""
    told = _ask({})
    if as_json:
        print_json({"text": told.text, "policy": told.policy})
        return
    click.echo(f"[policy]\n{told.text.rstrip()}\n")
    print_table(("setting", "value"), sorted(told.policy.items()), "")


@policy.command("set")
@click.argument("pairs", nargs=-1, required=True, metavar="KEY VALUE…")
def set_values(pairs: tuple[str, ...]) -> None:
    """Change settings, as: preset idle idle_s 300 exclusive blender,steam. At once; config.toml is written."""
    if len(pairs) % 2:
        raise InvalidError(f"{pairs[-1]} has no value.", fix="Write KEY VALUE, as: potluck policy set idle_s 300")
    lines = [f"{_key(key)} = {_toml(key, value)}\n" for key, value in zip(pairs[::2], pairs[1::2], strict=True)]
    _set("".join(lines), keep=True)


@policy.command("unset")
@click.argument("keys", nargs=-1, required=True, metavar="KEY…")
def unset_values(keys: tuple[str, ...]) -> None:
    """Take settings out of the table: they are as the preset has them, at once. config.toml is written."""
    _set("", keep=True, unset=tuple(map(_key, keys)))
    counts = _ask({}).policy
    print_table(("setting", "value"), [(key, counts.get(key, "")) for key in keys], "")


@policy.command()
def edit() -> None:
    """Edit the table in $EDITOR, see what it would do now, and say whether it is to be kept."""
    before = text = _ask({}).text
    while True:
        text = click.edit(text, extension=".toml", require_save=False) or ""
        if text == before:
            click.echo("Nothing is changed.")
            return
        try:
            _show(_ask({}, text or "\n"), False, False, "under this policy, now")
        except InvalidError as error:
            click.echo(str(error), err=True)
            click.confirm("Edit it again?", default=True, abort=True)
            continue
        click.confirm("Keep it?", default=True, abort=True)
        _set(text)
        return


@click.command()
def drain() -> None:
    """Let what runs come to its end and take nothing new, until `potluck resume`."""
    _tell(messages.Drain)
    click.echo("Draining: what runs goes on, nothing new begins.")


@click.command()
def panic() -> None:
    """End everything at once, your own functions on this machine too, until `potluck resume`."""
    _tell(messages.Panic)
    click.echo("Everything is ended. Go on with: potluck resume")


def _show(told: messages.PolicyTold, as_json: bool, facts: bool, when: str) -> None:
    if as_json:
        print_json(named(told))
        return
    click.echo(f"It works for others {when}." if told.works else f"It takes no work of others {when}:")
    rows = [(each.code, each.text + (f" ({each.gpu})" if each.gpu else ""), each.fix) for each in told.reasons]
    print_table(("reason", "why", "what changes it"), rows, "")
    if told.next_us:
        click.echo(
            f"Looked at again at {time.strftime('%H:%M:%S', time.localtime(told.next_us / 1e6))}, if not before."
        )
    if facts:
        print_table(("fact", "now"), sorted(told.facts.items()), "")
        print_table(("setting", "value"), sorted(told.policy.items()), "")


def _set(text: str, keep: bool = False, unset: tuple[str, ...] = ()) -> None:
    connection = client()
    try:
        connection.ask(lambda number: messages.SetPolicy(number, text, keep, unset), control.Done)
    finally:
        connection.close()
    click.echo("Kept, and in force.")


def _key(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        raise InvalidError(f"{text!r} is no setting.", fix="See: potluck policy show")
    return text


def _toml(key: str, text: str) -> str:
    """A value as it is written in TOML, which plain words and lists with commas need not be."""
    try:
        tomllib.loads(f"a = {text}")
    except tomllib.TOMLDecodeError:
        parts = [json.dumps(part.strip(), ensure_ascii=False) for part in text.split(",")]
        return f"[{', '.join(parts)}]" if key in LISTS else json.dumps(text, ensure_ascii=False)
    return f"[{text}]" if key in LISTS and not text.lstrip().startswith("[") else text


def _ask(assume: dict[str, str], text: str = "") -> messages.PolicyTold:
    connection = client()
    try:
        return connection.ask(lambda number: messages.AskPolicy(number, assume, text), messages.PolicyTold)
    finally:
        connection.close()


def _tell(make: type[messages.Drain | messages.Panic]) -> None:
    connection = client()
    try:
        connection.ask(make, control.Done)
    finally:
        connection.close()


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidError(f"--assume {text} says nothing.", fix="Write FACT=VALUE, as idle_s=0.")
    return name.strip(), value.strip()


def _week_minute(text: str) -> int:
    """The minute of the week of "14:00" (today) or "sat-14:00"."""
    day, dash, clock = text.rpartition("-")
    found = re.fullmatch(r"(\d{1,2}):(\d{2})", clock)
    if not found or int(found[1]) > 23 or int(found[2]) > 59 or (dash and day.lower() not in DAYS):
        raise InvalidError(f"{text!r} is no time.", fix="Write 14:00, or sat-14:00.")
    today = datetime.datetime.now().astimezone().weekday()
    return (DAYS.index(day.lower()) if dash else today) * 1440 + int(found[1]) * 60 + int(found[2])
