"""`potluck mesh reserve|priority|limit|rules`: what an admin of a lab decides for its machines."""

from __future__ import annotations

import datetime
import time

import click

from potluck.cli.quota import ask, expires_us, find, told
from potluck.cli.show import as_json, named, print_json, print_table
from potluck.errors import InvalidError
from potluck.wire import accounts as messages

# As `potluck_ledger.entries.PRIORITY_ZERO` and `NO_LIMIT`.
ZERO, NO_LIMIT = 100, 2**53 - 1

_machine = click.option(
    "--machine", default="", help='A name, a peer id, or a label such as "lab=vision"; all unless given.'
)
_expires = click.option("--expires", help="The last day, YYYY-MM-DD (UTC); in a year unless given.")
_remove = click.option("--remove", is_flag=True, help="End it.")


@click.command()
@click.argument("who", metavar="USER|GROUP")
@click.option("--from", "since", help="When it begins, 2027-01-31 or 2027-01-31T09:00 (UTC); now unless given.")
@click.option("--to", "until", required=True, help="When it ends, in the same form.")
@_machine
@_remove
def reserve(who: str, since: str | None, until: str, machine: str, remove: bool) -> None:
    """Have machines run nothing but functions of a user or group for a while. What others run there ends when it
    begins, and goes on elsewhere."""
    starts_us, ends_us = _moment(since) if since else _now_us(), _moment(until)
    if ends_us <= max(starts_us, _now_us()):
        raise InvalidError("A reservation ends after it begins, and not in the past.", fix="Give another --to.")
    scope, name = _whose(who)
    _say("reserve", scope, name, machine, starts_us=starts_us, ends_us=starts_us if remove else ends_us)
    click.echo(f"{_where(machine)} {'is no longer' if remove else 'is'} reserved for the {scope} {name}.")


@click.command()
@click.argument("who", metavar="USER|GROUP")
@click.argument("level", type=click.IntRange(-ZERO, ZERO))
@_machine
@_expires
def priority(who: str, level: int, machine: str, expires: str | None) -> None:
    """Let a user or group come before others (above 0) or behind them (below 0), whatever they have used; 0 as all."""
    scope, name = _whose(who)
    _say("priority", scope, name, machine, level=level + ZERO, ends_us=expires_us(expires))
    click.echo(f"The {scope} {name} has priority {level} on {_where(machine)}.")


@click.command()
@click.argument("who", metavar="USER|GROUP")
@click.option("--gpus", type=click.IntRange(0), help="GPUs of one machine that all of them together have at once.")
@click.option("--cpus", type=click.FloatRange(0), help="CPUs, the same.")
@_machine
@_expires
@_remove
def limit(who: str, gpus: int | None, cpus: float | None, machine: str, expires: str | None, remove: bool) -> None:
    """Bound what a user, or all of a group together, have of each machine at once."""
    if (gpus is None and cpus is None) != remove:
        raise InvalidError("A limit is of something.", fix="Give --gpus or --cpus, or --remove without them.")
    scope, name = _whose(who)
    cpu_milli = NO_LIMIT if cpus is None else round(cpus * 1000)
    now_us = _now_us()
    ends_us = now_us if remove else expires_us(expires)
    _say(
        "limit", scope, name, machine, cpu_milli=cpu_milli, gpus=NO_LIMIT if gpus is None else gpus, starts_us=now_us,
        ends_us=ends_us,
    )  # fmt: skip
    click.echo(f"The {scope} {name} has {'no limit any more' if remove else 'a limit'} on {_where(machine)}.")


@click.command()
@as_json
def rules(as_json: bool) -> None:
    """Reservations, priorities and limits of the lab, those to come included."""
    lines = told().rules
    if as_json:
        print_json([named(line) for line in lines])
        return
    print_table(("rule", "for", "machine", "what", "from", "until"), [_row(line) for line in lines], "There are none.")


def _row(line: messages.RuleLine) -> tuple[str, ...]:
    gpus = [f"{line.gpus} GPUs"] if line.gpus < NO_LIMIT else []
    cpus = [f"{line.cpu_milli / 1000:g} CPUs"] if line.cpu_milli < NO_LIMIT else []
    words = {"reserve": "alone", "priority": f"{line.level - ZERO:+d}"}
    what = words.get(line.what) or ", ".join(gpus + cpus)
    times = (_time(line.starts_us), _time(line.expires_us))
    return line.what, f"{line.scope} {line.name}", line.machine or "all", what, *times


def _time(us: int) -> str:
    return f"{datetime.datetime.fromtimestamp(us / 1e6, datetime.UTC):%Y-%m-%d %H:%M}"


def _whose(who: str) -> tuple[str, str]:
    scope, name = find(who)
    if scope == "app":
        raise InvalidError("Rules are for users and groups.", fix="Name a node or a group, not an app.")
    return scope, name


def _say(
    what: str, scope: str, name: str, machine: str, *, level: int = ZERO, cpu_milli: int = NO_LIMIT,
    gpus: int = NO_LIMIT, starts_us: int = 0, ends_us: int,
) -> None:  # fmt: skip
    if len(machine.encode()) > 64:
        raise InvalidError("No machine has such a long name.")
    ask(lambda number: messages.SetRule(number, what, scope, name, machine, level, cpu_milli, gpus, starts_us, ends_us))


def _where(machine: str) -> str:
    return machine or "every machine"


def _now_us() -> int:
    return round(time.time() * 1e6)


def _moment(text: str) -> int:
    """Unix microseconds. Raises `InvalidError`."""
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise InvalidError(f"{text!r} is no time.", fix="Write 2027-01-31T09:00, in UTC.") from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=datetime.UTC)
    return round(found.timestamp() * 1e6)
