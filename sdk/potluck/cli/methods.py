"""`potluck run FILE.py::Model.method`: the parameters of the class and those of the method are options alike."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any, get_type_hints

import click

from potluck.app import App
from potluck.cli.options import option
from potluck.cls import Method
from potluck.errors import InvalidError, NotFoundError
from potluck.functions import Function
from potluck.parameters import Parameter
from potluck.runner.service import members


class MethodEntry:
    """A method of a registered class, before there is an object."""

    def __init__(self, app: App, cls: type, name: str) -> None:
        self.app, self.cls, self.name = app, cls, name
        member = members(cls).get(name)
        if not isinstance(member, Method):
            known = ", ".join(key for key, each in members(cls).items() if isinstance(each, Method)) or "none"
            raise NotFoundError(f"{cls.__name__} has no method {name} to run.", why=f"it has: {known}")
        self.raw = member.get_raw_f()
        self.parameters = {key: each for key, each in members(cls).items() if isinstance(each, Parameter) and each.init}

    def as_command(self) -> click.Command:
        """Raises `InvalidError` for what cannot be an option, or would be two."""
        hints = get_type_hints(self.raw)
        own = list(inspect.signature(self.raw).parameters.values())[1:]
        if twice := self.parameters.keys() & {each.name for each in own}:
            raise InvalidError(
                f"{self.cls.__name__} and its method {self.name} both take {', '.join(sorted(twice))}.",
                fix="Call it from an entrypoint, which can tell them apart.",
            )
        made = [option(self.cls.__name__, _as_parameter(key, each), each.kind) for key, each in self.parameters.items()]
        made += [option(self.name, each, hints.get(each.name, each.empty)) for each in own]
        return click.Command(self.name, params=list(made), help=inspect.getdoc(self.raw))

    def bind(self, arguments: dict[str, Any]) -> tuple[Function[..., Any], dict[str, Any]]:
        """The method of an object made of these arguments, and the rest of them."""
        given = {key: value for key, value in arguments.items() if key in self.parameters}
        function: Function[..., Any] = getattr(self.cls(**given), self.name)
        return function, {key: value for key, value in arguments.items() if key not in given}


def find_method(module: ModuleType, name: str) -> MethodEntry | None:
    """What `Model.method` names, if there is such a class. Raises `NotFoundError` when it lacks the method."""
    class_name, _, method = name.partition(".")
    apps = {id(value): value for value in vars(module).values() if isinstance(value, App)}
    for app in apps.values():
        if class_name in app.registered_classes:
            return MethodEntry(app, app.registered_classes[class_name], method or _only(app, class_name))
    return None


def _only(app: App, class_name: str) -> str:
    methods = [key for key, each in members(app.registered_classes[class_name]).items() if isinstance(each, Method)]
    if len(methods) != 1:
        names = ", ".join(f"{class_name}.{each}" for each in methods) or "none"
        raise InvalidError(f"{class_name} has {len(methods)} methods to run.", fix=f"Choose one: {names}")
    return methods[0]


def _as_parameter(name: str, declared: Parameter) -> inspect.Parameter:
    default = inspect.Parameter.empty if declared.required else declared.default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
