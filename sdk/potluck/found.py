"""Functions and classes of deployed apps, found by name: no app runs for them, the local node knows them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, cast

from msgspec.structs import replace

from potluck.app import App
from potluck.errors import ConnectionError, InvalidError, NotFoundError
from potluck.functions import Function
from potluck.options import Options
from potluck.output import make_output
from potluck.parameters import Parameter, checked_values, packed
from potluck.place import is_local
from potluck.runner.codec import unpack
from potluck.running import Link, check_python
from potluck.spec import changed
from potluck.variants import Cls
from potluck.web import Web
from potluck.wire import FunctionSpec
from potluck.wire.apps import AppFacts, AskApp, MethodFacts, NamedFunction
from potluck.wire.nested import CalleeFacts

# A program that calls for days follows what is deployed; asking the node takes some 0.1 ms.
FRESH_S = 1.0

_PLAIN = Options({})
_KINDS = {kind.__name__: kind for kind in (str, int, bool, bytes)}


class FoundLink(Link):
    """Looks functions up instead of building their images."""

    def __init__(self) -> None:
        super().__init__(make_output(False))
        # What is deployed, by app and name, and when that was asked.
        self._facts: dict[str, dict[str, NamedFunction]] = {}
        self._asked_s: dict[str, float] = {}

    def follow(self, app: str) -> None:
        """Learn anew, now and then, what is deployed. Raises `NotFoundError`, `ConnectionError`."""
        if time.monotonic() - self._asked_s.get(app, -FRESH_S) >= FRESH_S:
            facts = self._ask(app)
            with self._preparing:
                self._facts[app] = facts
                self._specs.clear()

    def _ask(self, app: str) -> dict[str, NamedFunction]:
        self._asked_s[app] = time.monotonic()
        functions = self.client.ask(lambda number: AskApp(number, app), AppFacts).functions
        return {each.name: each for each in functions}

    def facts(self, app: str, name: str) -> CalleeFacts:
        """What is known of what is deployed under the name. Raises `NotFoundError`."""
        found = self._named(app, name)
        return CalleeFacts(found.spec.generator, found.spec.web is not None, found.methods, found.parameters)

    def _named(self, app: str, name: str) -> NamedFunction:
        named = self._facts.get(app)
        if named is None:
            named = self._facts[app] = self._ask(app)
        if name not in named:
            raise NotFoundError(f"The app {app} has nothing named {name}.", why=f"it has: {', '.join(named)}")
        return named[name]

    def _prepare(self, function: Function[Any, Any]) -> FunctionSpec:
        assert isinstance(function, FoundFunction)
        function._facts()
        spec = self._named(function._app.name, function._found).spec
        check_python(function._pool, spec.python)
        if function._options.volumes:
            raise InvalidError(
                "What is deployed cannot get other volumes.",
                why="its image has no places for them",
                fix="Deploy it with volumes=.",
            )
        return changed(replace(spec, parameters=function._parameters), function._options, self.key)


_link: FoundLink | None = None


def link() -> FoundLink:
    """The one connection for all that is found; a new one when the node was restarted. In a worker, what stands for
    one."""
    global _link
    if not is_local():
        from potluck import nested

        return cast(FoundLink, nested.link())
    if _link is None or _link.client.lost:
        _link = FoundLink()
    return _link


class _FoundApp(App):
    """Counts as running."""

    def _require_run(self, function: str) -> Link:
        if not is_local():
            return link()
        try:
            link().follow(self.name)
        except ConnectionError:
            link().follow(self.name)  # the node was restarted
        return link()


class FoundFunction(Function[..., Any]):
    """A function, or the method of an object, whose code is on the node alone."""

    _is_found = True

    def __init__(
        self, app: str, name: str, options: Options = _PLAIN, method: str = "", parameters: bytes = b""
    ) -> None:
        self._found, self._method, self._parameters = name, method, parameters
        self._prepare(_FoundApp(app), options)
        self._changed = options is not _PLAIN

    @property
    def name(self) -> str:
        return f"{self._found}.{self._method}" if self._method else self._found

    @property
    def _pool(self) -> str:
        return self._found

    @property
    def _key(self) -> tuple[str, bytes, Options]:
        return f"{self._app.name}/{self._found}", self._parameters, self._options

    @property
    def _yields(self) -> bool:
        facts = self._facts()
        methods = {each.name: each.generator for each in facts.methods}
        return methods[self._method] if self._method else facts.generator

    @property
    def _web(self) -> Web | None:
        return Web("", self._found) if self._facts().web else None

    def _facts(self) -> CalleeFacts:
        facts = link().facts(self._app.name, self._found)
        if bool(facts.methods) != bool(self._method):
            kind, other = ("class", "Cls") if facts.methods else ("function", "Function")
            raise InvalidError(f"{self._found} is a {kind}.", fix=f"Find it with potluck.{other}.from_name().")
        return facts

    def get_raw_f(self) -> Any:
        raise self._no_code()

    def local(self, *args: Any, **kwargs: Any) -> Any:
        raise self._no_code()

    def _no_code(self) -> InvalidError:
        return InvalidError(f"The code of {self.name} is not here, only on the node.", fix="Use .remote().")

    def _with(self, options: Options) -> FoundFunction:
        return FoundFunction(self._app.name, self._found, options, self._method, self._parameters)

    def __reduce__(self) -> tuple[Any, ...]:
        return FoundFunction, (self._app.name, self._found, _PLAIN, self._method, self._parameters)

    def _payload(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        return super()._payload((self._method, *args) if self._method else args, kwargs)


class FoundCls(Cls):
    """A class whose code is on the node alone."""

    def __init__(self, app: str, name: str, options: Options = _PLAIN) -> None:
        super().__init__(options)
        self._app, self._name = app, name

    def __call__(self, *args: Any, **kwargs: Any) -> FoundObject:
        """An object; its parameters are checked against those that the class declares."""
        facts = self._facts()
        known = {each.name: _parameter(each.name, each.kind, each.default) for each in facts.parameters}
        values = checked_values(self._name, known, args, kwargs)
        return FoundObject(self._app, self._name, self._options, packed(self._name, values), facts.methods)

    def _facts(self) -> CalleeFacts:
        facts = link().facts(self._app, self._name)
        if not facts.methods:
            raise InvalidError(f"{self._name} is a function.", fix="Find it with potluck.Function.from_name().")
        return facts

    def _hydrate(self) -> Cls:
        self._facts()
        return self

    def _with(self, options: Options) -> Cls:
        return FoundCls(self._app, self._name, options)

    def __reduce__(self) -> tuple[Any, ...]:
        return FoundCls, (self._app, self._name)


class FoundObject:
    """An object of a class that was found: its methods are attributes."""

    def __init__(
        self, app: str, name: str, options: Options, parameters: bytes, methods: tuple[MethodFacts, ...]
    ) -> None:
        self._made = (app, name, options)
        self._parameters, self._names = parameters, tuple(each.name for each in methods)

    def __getattr__(self, name: str) -> FoundFunction:
        if name.startswith("_") or name not in self._names:
            raise AttributeError(f"{self.__dict__.get('_made', '')} has no method {name}")
        return FoundFunction(*self._made, name, self._parameters)


def _parameter(name: str, kind: str, default: bytes) -> Parameter:
    made = Parameter(unpack(default), True) if default else Parameter.needed()
    made.kind = _KINDS[kind]
    made.__set_name__(Parameter, name)
    return made
