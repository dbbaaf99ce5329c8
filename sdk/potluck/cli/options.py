"""A function's parameter as an option of the command line, and options that several commands share."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path
from typing import Any

import click

from potluck.errors import InvalidError

# Inherited by the processes in which `potluck serve` loads programs.
_WRITTEN_FOR = "POTLUCK_WRITTEN_FOR"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}


def duration_us(text: str) -> int:
    """Microseconds of "90s", "30m", "12h", "7d" or "4w". Raises `InvalidError`."""
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if not found or not int(found[1]):
        raise InvalidError(f"{text!r} is no length of time.", fix="Write 30m, 12h, 7d or 4w.")
    return int(found[1]) * _UNITS[found[2]] * 1_000_000


def _remember(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value:
        os.environ[_WRITTEN_FOR] = value


written_for = click.option(
    "--as",
    type=click.Choice(["modal"]),
    expose_value=False,
    callback=_remember,
    help="The program is written for Modal: `import modal` gives Potluck's twin of it.",
)

strategy = click.option(
    "--strategy",
    default="rolling",
    type=click.Choice(["rolling", "recreate"]),
    show_default=True,
    help="Take over once what is in use has a worker, or at once.",
)


def take_names() -> None:
    """Before a program is loaded: let modules that it was written for have their names."""
    if os.environ.get(_WRITTEN_FOR) == "modal":
        from potluck.modal import take_name

        take_name()


_TYPES: dict[Any, Any] = {
    int: int,
    float: float,
    str: str,
    bool: bool,
    Path: click.Path(path_type=Path),
    inspect.Parameter.empty: str,
}


def option(function: str, parameter: inspect.Parameter, kind: Any) -> click.Option:
    """Raises `InvalidError` for a parameter that no option can be."""
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise InvalidError(f"{function}() takes *{parameter.name}, which has no form on the command line.")
    kind = _unwrap_optional(kind)
    if kind not in _TYPES:
        raise InvalidError(
            f"The parameter {parameter.name} of {function}() has a type that no option can have: {kind}.",
            fix="Use int, float, str, bool or pathlib.Path, or give it in the code.",
        )
    flag = "--" + parameter.name.replace("_", "-")
    # An explicit default of None would satisfy click's `required`.
    required = parameter.default is parameter.empty
    more: dict[str, Any] = {"required": True} if required else {"default": parameter.default, "show_default": True}
    if kind is bool:
        return click.Option([f"{flag}/--no-{flag.removeprefix('--')}", parameter.name], **more)
    return click.Option([flag, parameter.name], type=_TYPES[kind], **more)


def _unwrap_optional(kind: Any) -> Any:
    parts = [part for part in getattr(kind, "__args__", ()) if part is not type(None)]
    return parts[0] if len(parts) == 1 and type(None) in kind.__args__ else kind
