"""`potluck ledger grant|member|give|grants|quota`: who may use how much of a lab's machines."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from potluck.cli.connect import ask_status, client
from potluck.cli.show import as_json, named, print_json, print_table
from potluck.errors import InvalidError, NotFoundError
from potluck.gpus import parse_gpu
from potluck.wire import accounts as messages
from potluck.wire.control import Done

if TYPE_CHECKING:
    from potluck import wire

_DAY_US = 86_400_000_000
PERIODS = {"once": 0, "day": _DAY_US, "week": 7 * _DAY_US, "month": 30 * _DAY_US}
# A grant of which the admin does not say when it ends, in days: a forgotten one should not be for ever.
EXPIRES_DAYS = 365
# Peer ids of Ed25519 keys; what is longer than this is in no grant.
_PEER = re.compile(r"12D3Koo[1-9A-HJ-NP-Za-km-z]{45}")
NAME_BYTES_MAX = 64
SECONDS_MAX = 10**9


@click.command("grant")
@click.argument("who", metavar="USER|GROUP|USER/APP")
@click.option("--gpu-seconds", type=click.FloatRange(0, SECONDS_MAX), required=True, help="0 ends what was granted.")
@click.option("--class", "gpu_class", default="", help='GPU model, such as A100, or "cpu"; any machine unless given.')
@click.option("--per", type=click.Choice(tuple(PERIODS)), default="once", help="Once, or anew each day, week or month.")
@click.option("--expires", help=f"The last day, YYYY-MM-DD (UTC); in {EXPIRES_DAYS} days unless given.")
def grant(who: str, gpu_seconds: float, gpu_class: str, per: str, expires: str | None) -> None:
    """Let somebody use the machines of your lab, as one of its admins.

    WHO is the name or id of a node, a group (`potluck ledger member`), or an app of a node: ann/training. A new grant
    takes the place of the last one for the same and the same class. A month has 30 days.
    """
    scope, name = find(who)
    question = (scope, name, _checked_class(gpu_class), round(gpu_seconds * 1e6), PERIODS[per], expires_us(expires))
    ask(lambda number: messages.GrantTime(number, *question))
    words = f" of {gpu_class}" if gpu_class else ""
    click.echo(f"{scope} {name} may use {gpu_seconds:g} s{words}{'' if per == 'once' else f' each {per}'}.")


@click.command("member")
@click.argument("group")
@click.argument("who", metavar="USER")
@click.option("--remove", is_flag=True, help="Take it out again.")
@click.option("--expires", help=f"The last day, YYYY-MM-DD (UTC); in {EXPIRES_DAYS} days unless given.")
def member(group: str, who: str, remove: bool, expires: str | None) -> None:
    """Put a node into a group, which shares its grants."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,32}", group):
        raise InvalidError(f"{group!r} names no group.", fix="Use up to 32 letters, digits, '-', '_' and '.'.")
    peer = peer_id(who)
    ask(lambda number: messages.SetMember(number, group, peer, 0 if remove else expires_us(expires)))
    click.echo(f"{peer} is {'no longer ' if remove else ''}in {group}.")


@click.command("give")
@click.argument("who", metavar="USER")
@click.option("--gpu-seconds", type=click.FloatRange(0, SECONDS_MAX, min_open=True), required=True)
@click.option("--note", default="", help="What for.")
def give(who: str, gpu_seconds: float, note: str) -> None:
    """Give somebody of your own quota: of what you were granted for any class. More than is left counts for nothing."""
    peer = peer_id(who)
    ask(lambda number: messages.GiveTime(number, peer, round(gpu_seconds * 1e6), note))
    click.echo(f"{gpu_seconds:g} s given to {peer}.")


@click.command("grants")
@as_json
def grants(as_json: bool) -> None:
    """Every grant of your lab, with what was used of it, who is in which group, and which admins this node obeys."""
    found = told()
    if as_json:
        print_json(
            {"grants": [named(line) for line in found.lines], "groups": dict(found.groups), "admins": found.admins}
        )
        return
    _print(found.lines, "Nothing is granted. An admin does so with `potluck ledger grant`.")
    if found.groups:
        print_table(("group", "members"), [(name, ", ".join(members)) for name, members in found.groups], "")
    click.echo(f"This node obeys {', '.join(found.admins)}.")


@click.command("quota")
@as_json
def quota(as_json: bool) -> None:
    """What this node may use of your lab's machines, and what is left of it."""
    mine = [line for line in told().lines if line.is_mine]
    if as_json:
        print_json([named(line) for line in mine])
        return
    _print(mine, "Nothing is granted to this node. Ask an admin of your lab: `potluck ledger grant`.")


def _print(lines: Sequence[messages.QuotaLine], nothing: str) -> None:
    columns = ("for", "name", "class", "granted", "used", "left", "per", "until")
    print_table(columns, [_row(line) for line in lines], nothing)


def _row(line: messages.QuotaLine) -> tuple[str, ...]:
    per = next((name for name, us in PERIODS.items() if us == line.period_us), f"{line.period_us / _DAY_US:g} days")
    times = (line.granted_us, line.used_us, line.granted_us - line.used_us)
    until = datetime.datetime.fromtimestamp(line.until_us / 1e6, datetime.UTC)
    shown = (f"{us / 1e6:.1f} s" for us in times)
    return line.scope, line.name, line.gpu_class or "any", *shown, per, f"{until:%Y-%m-%d %H:%M}"


def told() -> messages.QuotasTold:
    """What this node knows of its lab."""
    connection = client()
    try:
        return connection.ask(messages.AskQuotas, messages.QuotasTold)
    finally:
        connection.close()


def ask(make: Callable[[int], wire.Message]) -> None:
    """Have the node sign something."""
    connection = client()
    try:
        connection.ask(make, Done)
    finally:
        connection.close()


def find(who: str) -> tuple[str, str]:
    """(scope, name) of whom a grant is for. A group comes before a node of that name: nodes name themselves."""
    owner, slash, app = who.partition("/")
    if slash:
        if not 1 <= len(app.encode()) <= NAME_BYTES_MAX:
            raise InvalidError(f"{who!r} names no app.", fix="Write NODE/APP.")
        return "app", f"{peer_id(owner)}/{app}"
    if any(name == who for name, _ in told().groups):
        return "group", who
    return "user", peer_id(who)


def peer_id(who: str) -> str:
    """The id of a node that is known by name here. Raises `NotFoundError`, `InvalidError`."""
    if _PEER.fullmatch(who):
        return who
    status = ask_status()
    found = {peer.peer for peer in status.peers if peer.name == who} | ({status.peer} if status.name == who else set())
    if len(found) > 1:
        raise InvalidError(f"{len(found)} nodes call themselves {who}.", fix="Give the peer id: see `potluck status`.")
    if not found:
        raise NotFoundError(
            f"No node named {who} is up, and no group has that name.",
            fix=f"Give its peer id, or make the group first: potluck ledger member {who} USER",
        )
    return found.pop()


def _checked_class(text: str) -> str:
    if not text or text.lower() == "cpu":
        return text.lower()
    if parse_gpu(text)[1:] != (1, 0, False) or ":" in text:
        raise InvalidError(f"--class {text} is no class of GPUs.", fix="Give a model alone, such as A100.")
    return text


def expires_us(text: str | None) -> int:
    """Unix microseconds of the end of that day."""
    if text is None:
        return round((time.time() + EXPIRES_DAYS * 86400) * 1e6)
    try:
        day = datetime.datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=datetime.UTC)
    except ValueError:
        raise InvalidError(f"{text!r} is no date.", fix="Write it as 2027-01-01.") from None
    if day.timestamp() + 86400 <= time.time():
        raise InvalidError(f"{text} is over.", fix="Give a day to come; --gpu-seconds 0 ends a grant.")
    return round((day.timestamp() + 86400) * 1e6)
