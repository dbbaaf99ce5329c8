"""`potluck token create|ls|rm`: who may call web endpoints with `requires_proxy_auth=True`."""

from __future__ import annotations

import time

import click

from potluck.cli.connect import client
from potluck.cli.show import ago, as_json, named, print_json, print_table
from potluck.wire.tokens import AskTokens, DropToken, MakeToken, TokenMade, Tokens


@click.group()
def token() -> None:
    """Tokens for web endpoints with `requires_proxy_auth=True`."""


@token.command()
@click.option("--note", default="", help="For whom it is.")
@as_json
def create(note: str, as_json: bool) -> None:
    """Make a token. Its secret is shown this once."""
    connection = client()
    made = connection.ask(lambda number: MakeToken(number, note), TokenMade)
    connection.close()
    if as_json:
        print_json({"key": made.key, "secret": made.secret})
        return
    click.echo(f"Potluck-Key: {made.key}\nPotluck-Secret: {made.secret}")


@token.command("ls")
@as_json
def list_tokens(as_json: bool) -> None:
    """All tokens, without their secrets."""
    connection = client()
    found = connection.ask(AskTokens, Tokens).tokens
    connection.close()
    if as_json:
        print_json([named(each) for each in found])
        return
    now_us = time.time_ns() // 1000
    rows = [(each.key, ago(each.created_us, now_us), each.note) for each in found]
    print_table(("key", "made", "note"), rows, "No tokens. Make one: potluck token create")


@token.command()
@click.argument("key")
def rm(key: str) -> None:
    """Let nobody in with this token any more."""
    connection = client()
    connection.ask(lambda number: DropToken(number, key), Tokens)
    connection.close()
