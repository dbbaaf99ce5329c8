"""`potluck completion SHELL`: what Tab offers. Files are read but never run, since Tab must have no effects."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from potluck.cli.connect import ask_status, client
from potluck.errors import Error
from potluck.wire.apps import Apps, AskApps

VARIABLE = "_POTLUCK_COMPLETE"
SHELLS = ("bash", "zsh", "fish")
# What makes a name in a file one that commands take.
_DECORATORS = ("function", "cls", "local_entrypoint")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes SHELL complete commands, names of apps and workers, and, but for bash, functions in a file.

    For bash: echo 'eval "$(potluck completion bash)"' >> ~/.bashrc
    """
    kind = get_completion_class(shell)
    assert kind, "click knows these shells"
    click.echo(kind(ctx.find_root().command, {}, "potluck", VARIABLE).source())


def complete_target(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files, and after FILE.py:: what is in it."""
    path, separator, begun = incomplete.partition("::")
    if not separator:
        return [CompletionItem(incomplete, type="file")]
    try:
        names = list(_names(Path(path).read_text()))
    except (OSError, ValueError, SyntaxError):
        return []
    return [CompletionItem(f"{path}::{name}") for name in names if name.startswith(begun)]


def _names(source: str) -> Iterator[str]:
    """Functions, classes and entrypoints of an app, as their decorators tell."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            made = [each.func for each in node.decorator_list if isinstance(each, ast.Call)]
            if any(isinstance(each, ast.Attribute) and each.attr in _DECORATORS for each in made):
                yield node.name


def complete_app(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Apps that the node knows."""
    try:
        connection = client()
        apps = connection.ask(AskApps, Apps).apps
        connection.close()
    except (Error, OSError):
        return []
    return [each.app for each in apps if each.app.startswith(incomplete)]


def complete_worker(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Workers on this node."""
    try:
        workers = ask_status().workers
    except (Error, OSError):
        return []
    return [each.worker for each in workers if each.worker.startswith(incomplete)]
