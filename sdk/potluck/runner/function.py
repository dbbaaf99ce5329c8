"""Finds the user's function: by module and name, or in a cloudpickle."""

from __future__ import annotations

import importlib
import sys
from _pickle import loads

from .failures import Refusal, missing_module
from .service import Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Function = Callable[..., Any]

# inspect.CO_COROUTINE, without importing inspect.
_CO_COROUTINE = 0x80


def load(spec: dict[str, Any]) -> Function:
    """Import what `spec` (the fields of a `FunctionSpec`) declares, then its function, or make an object of its class.

    Raises `Refusal`, with the user's own exception as its cause where there is one.
    """
    _check_python(spec["python"])
    name = spec["name"] or spec["qualname"] or "the function"
    for module in spec["imports"]:
        _guarded(f"Function {name!r}", importlib.import_module, module)
    if spec["web"]:
        # What its workers would each import; forked processes share it.
        modules = {"wsgi": "web_wsgi", "server": "web_server"}
        importlib.import_module(f"{__package__}.{modules.get(spec['web'][0], 'web_asgi')}")
    if spec["parameters"]:
        return _guarded(f"Class {name!r}", _serve, spec, "making it, or its enter(snap=True),")  # type: ignore[no-any-return]
    function = _guarded(f"Function {name!r}", _find, spec)
    if not callable(function):
        raise Refusal("invalid", f"{name!r} is a {type(function).__name__}, not a function.")
    _prepare(function)
    return function  # type: ignore[no-any-return]


def _check_python(wanted: str) -> None:
    have = f"{sys.version_info.major}.{sys.version_info.minor}"
    if wanted and wanted != have:
        raise Refusal(
            "python-version",
            f"The caller runs Python {wanted}, the image has Python {have}.",
            why="Pickled functions only load in the minor version that made them.",
            fix=f"Build the image with Python {wanted}, or call from Python {have}.",
        )


def _guarded(what: str, action: Callable[[Any], Any], argument: Any, at_fault: str = "its import") -> Any:
    try:
        return action(argument)
    except Refusal:
        raise
    except ImportError as error:
        raise missing_module(error, what) from error
    except BaseException as error:
        why = f"{type(error).__name__}: {error}"
        raise Refusal("execution", f"{what} could not be loaded: {at_fault} raised an exception.", why=why) from error


def _find(spec: dict[str, Any]) -> Any:
    if spec["pickled"]:
        return unwrap(loads(spec["pickled"]))
    found: Any = importlib.import_module(spec["module"])
    for part in spec["qualname"].split("."):
        found = _attribute(found, part, spec)
    return unwrap(found)


def _serve(spec: dict[str, Any]) -> Service:
    cls = _find(spec)
    if not isinstance(cls, type):
        raise Refusal("invalid", f"{spec['name']!r} is a {type(cls).__name__}, not a class.")
    limit_us = spec["startup_timeout_us"] or spec["timeout_us"]
    return Service(cls, spec["parameters"], limit_us / 1e6)


def _attribute(holder: Any, part: str, spec: dict[str, Any]) -> Any:
    try:
        return getattr(holder, part)
    except AttributeError:
        raise Refusal(
            "not-found",
            f"Module {spec['module']!r} has no {spec['qualname']!r}.",
            why="The image's copy of the source differs from the caller's, or the function is made at run time.",
            fix="Define the function at the top level of its module.",
        ) from None


def unwrap(found: Any) -> Any:
    """The plain function inside Potluck's `Function` object; anything else as it is."""
    raw = getattr(found, "get_raw_f", None)
    return raw() if callable(raw) else found


def _prepare(function: Any) -> None:
    """Import what the first call would import, so that it happens once, before workers are forked."""
    code = getattr(function, "__code__", None)
    if code is not None and code.co_flags & _CO_COROUTINE:
        importlib.import_module("asyncio")
