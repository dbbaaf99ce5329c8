"""`potluck deploy`: record all functions and classes of an app on the local node, where others find them by name."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from potluck.cls import Method, WebMethod
from potluck.errors import Error, InvalidError
from potluck.functions import Function
from potluck.parameters import PARAMETERS, Parameter
from potluck.runner.codec import pack
from potluck.runner.service import members
from potluck.running import Link, Running
from potluck.wire import FunctionSpec
from potluck.wire.apps import AppFacts, DeployApp, MethodFacts, NamedFunction, ParameterFacts

if TYPE_CHECKING:
    from potluck.app import App


class Note(NamedTuple):
    """What is kept with a version: see `App.deploy`."""

    tag: str = ""
    comment: str = ""
    strategy: str = "rolling"


PLAIN = Note()


def deploy(
    app: App, *, name: str = "", show_progress: bool | None = None, build_on: str = "", note: Note = PLAIN
) -> AppFacts:
    """Have all images built and the app recorded under its name, or another one, in place of what was there.

    Raises `InvalidError` for an app without functions, whatever building an image raises, and `ExecutionError` when the
    version before stays, since this one cannot be started.
    """
    running = Running(app, show_progress, build_on)
    try:
        return record(running, app, name or app.name, lasting=True, note=note)
    finally:
        running.close()


def author() -> str:
    """Who deploys, as far as this machine knows."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def record(running: Running, app: App, name: str, *, lasting: bool, note: Note = PLAIN) -> AppFacts:
    """As `deploy`, on the connection of a run; unless `lasting`, only for as long as that is open."""
    functions = [*_functions(running, app), *_classes(running, app)]
    if not functions:
        raise InvalidError(
            f"The app {app.name} has nothing to deploy.", fix="Decorate its functions with @app.function()."
        )
    running.grant(name)
    return _record(running, functions, name, lasting, note)


def record_web(running: Running, app: App) -> dict[str, str]:
    """Let functions that answer requests do so for as long as the connection is open; returns their URLs by name."""
    functions = [
        NamedFunction(name, running.spec(function))
        for name, function in app.registered_functions.items()
        if function._web
    ]
    return dict(_record(running, functions, app.name, lasting=False).urls)


def named(
    running: Running, app: App, known: Collection[str], ready: Callable[[Function[Any, Any]], bool]
) -> Iterator[NamedFunction]:
    """Functions and classes that are not known yet, and are ready. One that cannot be made ready is left out: whoever
    calls it in the program learns why."""
    for name, function in app.registered_functions.items():
        if name not in known and _is_ready(function, ready):
            yield NamedFunction(name, Link.spec(running, function))
    for name, cls in app.registered_classes.items():
        if name not in known and _methods(cls) and _is_ready(of_no_object(cls), ready):
            yield _named_class(running, name, cls)


def _is_ready(function: Function[Any, Any], ready: Callable[[Function[Any, Any]], bool]) -> bool:
    try:
        return ready(function)
    except Error:
        return False


def _record(running: Running, functions: list[NamedFunction], name: str, lasting: bool, note: Note = PLAIN) -> AppFacts:
    named = tuple(replace(each, spec=_deployed(each.spec, name)) for each in functions)
    return running.client.ask(lambda number: DeployApp(number, name, named, lasting, author(), *note), AppFacts)


def _deployed(spec: FunctionSpec, app: str) -> FunctionSpec:
    """Under the name of the app there; a limit is for each call, since there is no run to end."""
    return replace(spec, app=app, limit=spec.limit and replace(spec.limit, name=""))


def _functions(running: Running, app: App) -> Iterator[NamedFunction]:
    for name, function in app.registered_functions.items():
        schedule = function._options.schedule
        yield NamedFunction(name, running.spec(function), schedule=schedule._wire() if schedule else None)


def _classes(running: Running, app: App) -> Iterator[NamedFunction]:
    for name, cls in app.registered_classes.items():
        if not _methods(cls) and any(isinstance(member, WebMethod) for member in vars(cls).values()):
            continue
        yield _named_class(running, name, cls)


def _named_class(running: Running, name: str, cls: type) -> NamedFunction:
    facts = tuple(MethodFacts(key, member.yields) for key, member in _methods(cls).items())
    return NamedFunction(name, Link.spec(running, of_no_object(cls)), facts, tuple(_parameters(cls)))


def _methods(cls: type) -> dict[str, Method[..., Any]]:
    return {key: member for key, member in members(cls).items() if isinstance(member, Method)}


def of_no_object(cls: type) -> Function[..., Any]:
    """A method of an app's class before any object is made: whoever makes one knows the parameters.

    Raises `InvalidError` for a class without methods.
    """
    methods = _methods(cls)
    if not methods:
        raise InvalidError(f"The class {cls.__name__} has no methods.", fix="Decorate them with @potluck.method().")
    blank: Any = object.__new__(cls)
    vars(blank)[PARAMETERS] = pack([])
    function: Function[..., Any] = getattr(blank, next(iter(methods)))
    return function


def _parameters(cls: type) -> Iterator[ParameterFacts]:
    for name, member in members(cls).items():
        if isinstance(member, Parameter) and member.init:
            default = b"" if member.required else pack(member.default)
            yield ParameterFacts(name, member.kind.__name__, default)
