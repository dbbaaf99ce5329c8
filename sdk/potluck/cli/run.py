"""`potluck run file.py::entry --arg value`: an app's entrypoint with typed arguments, its functions on the mesh."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import click

from potluck.app import App, LocalEntrypoint
from potluck.cli.completion import complete_target
from potluck.cli.detach import detached, outlive_terminal
from potluck.cli.methods import find_method
from potluck.cli.options import option, take_names, written_for
from potluck.errors import InvalidError, NotFoundError
from potluck.functions import Function


@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []})
@click.option("-q", "--quiet", is_flag=True, help="No progress line.")
@click.option("-d", "--detach", is_flag=True, help="Go on when this terminal is closed.")
@click.option("--build-on", metavar="PEER", default="", help="Have PEER build the images.")
@written_for
@click.argument("target", metavar="FILE.py[::NAME]", shell_complete=complete_target)
@click.pass_context
def run(ctx: click.Context, target: str, quiet: bool, detach: bool, build_on: str) -> None:
    """Run an app's entrypoint, one of its functions, or Model.method, with arguments from the command line.

    NAME may be left out when there is one entrypoint, or one function. Its parameters become options:
    `def main(rounds: int = 3)` takes `--rounds 5`. For a method, those of its class do, too.

    With --detach an entrypoint goes on when its terminal is closed, and a function is spawned: it goes on whatever
    happens to this program. `potluck app logs` shows what they print.
    """
    if target in ("-h", "--help"):
        click.echo(ctx.get_help())
        return
    chosen, arguments = _chosen(target, list(ctx.args))
    if detach:
        outlive_terminal()
    with chosen.app.run(show_progress=False if quiet else None, build_on=build_on) as app:
        for name, url in app._run.urls.items() if app._run and not quiet else ():
            click.secho(f"  {name}  ←  {url}", dim=True, err=True)
        if isinstance(chosen, LocalEntrypoint):
            _call(chosen.raw, arguments)
        else:
            _call_remotely(chosen, arguments, detach)


def _chosen(target: str, words: list[str]) -> tuple[LocalEntrypoint | Function[..., Any], dict[str, Any]]:
    """What to start, and its arguments from the rest of the command line."""
    path, _, name = target.partition("::")
    module = load(path)
    if method := find_method(module, name):
        return method.bind(_parsed(method.as_command(), target, words))
    _, chosen = choose(module, name, path)
    return chosen, _parsed(as_command(chosen), target, words)


def _parsed(command: click.Command, target: str, words: list[str]) -> dict[str, Any]:
    with command.make_context(target, words) as context:
        return dict(context.params)


def _call_remotely(function: Function[..., Any], arguments: dict[str, Any], detach: bool) -> None:
    """Shows what it returns, or each item as it comes."""
    if function._yields:
        for item in function.remote_gen(**arguments):
            click.echo(repr(item))
        return
    result = detached(function, arguments) if detach else function.remote(**arguments)
    if result is not None:
        click.echo(repr(result))


def _call(raw: Callable[..., Any], arguments: dict[str, Any]) -> None:
    if inspect.iscoroutinefunction(raw):
        import asyncio

        asyncio.run(raw(**arguments))
    else:
        raw(**arguments)


def load(target: str) -> ModuleType:
    """Import a file by its path, or a module by its name. Raises `NotFoundError`."""
    take_names()
    path = Path(target)
    if path.suffix != ".py" and not path.exists():
        sys.path.insert(0, str(Path.cwd()))
        return _import(target, f"There is no file and no module {target}.")
    if not path.is_file():
        raise NotFoundError(f"There is no file {target}.", fix="Give the path of a Python file.")
    sys.path.insert(0, str(path.resolve().parent))
    return _import(path.stem, f"{target} cannot be imported as a module named {path.stem}.")


def _import(name: str, what: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == "modal" != name:
            raise NotFoundError(
                f"{name} imports modal, which is not installed.",
                fix="Add --as modal, which runs programs for Modal here, or write `import potluck.modal as modal`.",
            ) from None
        if error.name != name.partition(".")[0]:
            raise
        raise NotFoundError(what) from None
    except SyntaxError as error:
        raise InvalidError(
            f"{error.filename} is not valid Python.", why=f"line {error.lineno}: {error.msg}", fix="Mend that line."
        ) from None


def choose(module: ModuleType, name: str, target: str) -> tuple[App, LocalEntrypoint | Function[..., Any]]:
    """The app and what to start in it. Raises `NotFoundError`, `InvalidError`."""
    apps = {id(value): value for value in vars(module).values() if isinstance(value, App)}
    if not apps:
        raise no_app(target)
    entries = {key: each for app in apps.values() for key, each in app.registered_entrypoints.items()}
    functions = {key: each for app in apps.values() for key, each in app.registered_functions.items()}
    found = _named(entries, functions, name) if name else _only(entries, functions, target)
    if found is None:
        known = ", ".join([*entries, *functions]) or "none"
        raise NotFoundError(f"{target} has nothing named {name}.", why=f"it has: {known}")
    return found.app, found


def no_app(target: str) -> NotFoundError:
    """The error for a file without an app, or with one of Modal's own."""
    fix = 'Write `app = potluck.App("name")` at its top level.'
    if "modal" in sys.modules and sys.modules["modal"] is not sys.modules.get("potluck.modal"):
        fix = "Add --as modal, if it is a program for Modal."
    return NotFoundError(f"{target} has no app.", fix=fix)


def _named(
    entries: dict[str, LocalEntrypoint], functions: dict[str, Function[..., Any]], name: str
) -> LocalEntrypoint | Function[..., Any] | None:
    return entries.get(name) or functions.get(name.removeprefix("app."))


def _only(
    entries: dict[str, LocalEntrypoint], functions: dict[str, Function[..., Any]], target: str
) -> LocalEntrypoint | Function[..., Any]:
    """The one entrypoint, or without any the one function."""
    several: dict[str, Any] = dict(entries or functions)
    if not several:
        raise NotFoundError(f"{target} has nothing to run.", fix="Decorate a function with @app.local_entrypoint().")
    if len(several) > 1:
        names = ", ".join(f"{target}::{name}" for name in several)
        raise InvalidError(f"{target} has several things to run.", fix=f"Choose one: {names}")
    found: LocalEntrypoint | Function[..., Any] = several.popitem()[1]
    return found


def as_command(chosen: LocalEntrypoint | Function[..., Any]) -> click.Command:
    """A click command with an option for each parameter. Raises `InvalidError` for types that no option can have."""
    raw = chosen.raw if isinstance(chosen, LocalEntrypoint) else chosen.get_raw_f()
    hints = get_type_hints(raw)
    options: list[click.Parameter] = [
        option(raw.__name__, parameter, hints.get(parameter.name, parameter.empty))
        for parameter in inspect.signature(raw).parameters.values()
    ]
    return click.Command(raw.__name__, params=options, help=inspect.getdoc(raw))
