"""`potluck secret create|list|delete`: variables that the local node keeps, locked, under a name."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from potluck.cli.connect import client
from potluck.cli.show import ago, as_json, named, print_json, print_table
from potluck.errors import InvalidError
from potluck.wire import control
from potluck.wire import secrets as messages


@click.group()
def secret() -> None:
    """Secrets that this node keeps for functions: Secret.from_name("…")."""


@secret.command("create")
@click.argument("name")
@click.argument("pairs", nargs=-1, metavar="[KEY=VALUE]…")
@click.option("--from-dotenv", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Read a .env file.")
@click.option("--from-json", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Read a JSON object.")
@click.option("--force", is_flag=True, help="Replace what is there under this name.")
@click.option("--merge", is_flag=True, help="Add to what is there, or replace single values.")
def create(
    name: str, pairs: tuple[str, ...], from_dotenv: Path | None, from_json: Path | None, force: bool, merge: bool
) -> None:
    """Keep variables under a name. KEY=- reads a value from standard input, or asks for it without showing it:
    arguments can be seen by others on this machine and stay in the shell's history."""
    values = {**_dotenv(from_dotenv), **_json(from_json), **dict(map(_pair, pairs))}
    existing = messages.MERGE if merge else messages.REPLACE if force else messages.REFUSE
    connection = client()
    connection.ask(lambda number: messages.KeepSecret(number, name, values, existing), control.Done)
    connection.close()
    click.echo(f'{name} is kept. In a program: secrets=[potluck.Secret.from_name("{name}")]')


@secret.command("list")
@as_json
def list_secrets(as_json: bool) -> None:
    """Names and variables of all, without their values."""
    connection = client()
    found = connection.ask(messages.AskSecrets, messages.Secrets).secrets
    connection.close()
    if as_json:
        print_json([named(each) for each in found])
        return
    now_us = time.time_ns() // 1000
    rows = [
        (each.name, ", ".join(each.variables), ago(each.created_us, now_us), _used(each.used_us, now_us))
        for each in found
    ]
    print_table(("secret", "variables", "made", "used"), rows, "No secrets are kept here.")


@secret.command("delete")
@click.argument("name")
def delete(name: str) -> None:
    """Forget a secret. Functions that were deployed with it keep its values."""
    connection = client()
    connection.ask(lambda number: messages.ForgetSecret(number, name), control.Done)
    connection.close()
    click.echo(f"{name} is forgotten.")


def _used(used_us: int, now_us: int) -> str:
    return ago(used_us, now_us) if used_us else "never"


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise InvalidError("A variable has the form KEY=VALUE.", fix="KEY=- reads the value from standard input.")
    if value != "-":
        return key, value
    if sys.stdin.isatty():
        return key, click.prompt(key, hide_input=True)
    return key, sys.stdin.readline().rstrip("\n")


def _dotenv(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    from dotenv import dotenv_values

    return {key: value for key, value in dotenv_values(path, interpolate=False).items() if value is not None}


def _json(path: Path | None) -> dict[str, str]:
    import msgspec

    if path is None:
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except msgspec.DecodeError:
        # Without its words, which may show a value.
        raise InvalidError(f"{path} is no JSON object of strings.") from None
