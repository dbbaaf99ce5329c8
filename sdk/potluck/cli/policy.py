"""`potluck policy explain|simulate`, `potluck drain|panic`: when this machine works for others, and why not."""

from __future__ import annotations

import datetime
import re
import time

import click

from potluck.cli.connect import client
from potluck.cli.show import as_json, named, print_json, print_table
from potluck.errors import InvalidError
from potluck.wire import control
from potluck.wire import policy as messages

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


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


def _ask(assume: dict[str, str]) -> messages.PolicyTold:
    connection = client()
    try:
        return connection.ask(lambda number: messages.AskPolicy(number, assume), messages.PolicyTold)
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
