"""Classes on the mesh: an object is made once in a worker, and its methods are called there as often as you like."""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from potluck.errors import InvalidError
from potluck.functions import Function
from potluck.options import Options
from potluck.parameters import PARAMETERS, checked_values, construct, packed, parameters_of, prepare_parameters
from potluck.runner.service import ENTER, ENTERED, EXIT, MARK, SNAP, hooks, members, run_apart
from potluck.sharing import Sharing, is_method, joined, sharing_of, yields
from potluck.web import Web, web_of

if TYPE_CHECKING:
    from potluck.app import App

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
F = TypeVar("F", bound=Callable[..., Any])

# As in the module `inspect`, which is slow to import.
CO_COROUTINE = 0x80

# Under this name a class keeps its `Registration`; subclasses need one of their own.
REGISTRATION = "_potluck_registration"
# Key in the `__dict__` of an object that was made with other options than its class has.
OPTIONS = "_potluck_options"


def enter(*, snap: bool = False) -> Callable[[F], F]:
    """Run this method once in each worker, before its first input; with `snap=True` once in the process from which the
    workers are forked, so that they share what it loads.

    What does not survive a fork (threads, connections, GPUs) belongs into one without `snap`. Raises `InvalidError`.
    """
    return _marker(SNAP if snap else ENTER, "enter")


def exit() -> Callable[[F], F]:
    """Run this method when a worker is stopped. Raises `InvalidError`."""
    return _marker(EXIT, "exit")


def _marker(kind: str, name: str) -> Callable[[F], F]:
    def decorate(raw: F) -> F:
        _check_in_class(raw, name)
        code = raw.__code__
        if code.co_argcount + code.co_kwonlyargcount != 1 or yields(raw):
            raise InvalidError(
                f"{raw.__qualname__} cannot be an @potluck.{name}() method.",
                why="it takes arguments besides self, or is a generator",
                fix="Use potluck.parameter() for what it needs.",
            )
        setattr(raw, MARK, kind)
        return raw

    return decorate


def _check_in_class(raw: object, name: str) -> None:
    if not isinstance(raw, types.FunctionType):
        raise InvalidError(
            f"@potluck.{name}() decorates plain methods, not a {type(raw).__name__}.",
            fix="Write it with parentheses, once, and with no other decorator below it.",
        )
    if not is_method(raw):
        raise InvalidError(
            f"{raw.__name__} is not in a class, where @potluck.{name}() belongs.",
            fix="Use @app.function() for functions.",
        )


class MethodDecorator(Protocol):
    """What `@potluck.method()` returns: keeps the signature; an `async def` counts as what it returns when awaited."""

    @overload
    def __call__(self, raw: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /) -> Method[P, R]: ...
    @overload
    def __call__(self, raw: Callable[Concatenate[Any, P], R], /) -> Method[P, R]: ...


def method(*, is_generator: bool | None = None) -> MethodDecorator:
    """Make a method of an `@app.cls()` class callable on the mesh: `Model().predict.remote(…)`.

    `is_generator` is found out unless given. Raises `InvalidError` outside of a class.
    """

    def decorate(raw: Callable[..., Any]) -> Method[..., Any]:
        _check_in_class(raw, "method")
        return Method(raw, yields(raw) if is_generator is None else is_generator)

    return cast(MethodDecorator, decorate)


class Method(Generic[P, R]):
    """Gives each object of the class its own `MethodFunction`."""

    def __init__(self, raw: Callable[..., Any], yields: bool = False) -> None:
        self._raw, self._name, self.yields = raw, raw.__name__, yields
        self.__doc__ = raw.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Method[P, R]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Function[P, R]: ...
    def __get__(self, instance: object, owner: type) -> Method[P, R] | Function[P, R]:
        if instance is None:
            return self
        registration = vars(type(instance)).get(REGISTRATION)
        if registration is None:
            raise InvalidError(
                f"{type(instance).__name__} has methods for the mesh, but is not registered.",
                fix="Decorate it with @app.cls().",
            )
        return MethodFunction(registration, self, self._name, instance)

    if not TYPE_CHECKING:  # to whom it would mean that there is any attribute

        def __getattr__(self, name):
            if name in ("remote", "remote_gen", "local", "map", "starmap", "for_each", "spawn", "spawn_map"):
                owner = self._raw.__qualname__.rpartition(".")[0]
                raise InvalidError(
                    f"{self._raw.__qualname__} was used on the class.",
                    fix=f"Make an object first: {owner}(…).{self._name}.{name}(…).",
                )
            raise AttributeError(name)

    def get_raw_f(self) -> Callable[..., Any]:
        """The plain function."""
        return self._raw


class Registration:
    """What `@app.cls()` knows of a class. Options and runs stay on this machine."""

    def __init__(self, app: App, options: Options) -> None:
        self.app, self.options = app, options

    def __reduce__(self) -> tuple[Any, ...]:
        return (_detached, (self.app.name,))


def move(cls: type, app: App) -> None:
    """Let a registered class belong to another app."""
    vars(cls)[REGISTRATION].app = app


def _detached(app: str) -> Registration:
    from potluck.app import App

    return Registration(App(app), Options({}))


class MethodFunction(Function[P, R]):
    """A method of one object. All methods of equal objects share their workers."""

    # The method's name.
    _leading = 1

    def __init__(self, registration: Registration, method: Method[P, R], name: str, instance: object) -> None:
        self._method, self._instance, self._is_generator = name, instance, method.yields
        self._parameters: bytes = vars(instance)[PARAMETERS]
        self._registered = registration.options
        super().__init__(registration.app, method.get_raw_f(), vars(instance).get(OPTIONS, registration.options))

    @property
    def name(self) -> str:
        return f"{self._pool}.{self._method}"

    @property
    def _pool(self) -> str:
        return type(self._instance).__name__

    @property
    def _origin(self) -> Callable[..., Any]:
        return type(self._instance)

    @property
    def _yields(self) -> bool:
        return self._is_generator

    @property
    def _changed(self) -> bool:  # type: ignore[override]
        return vars(self._instance).get(OPTIONS, self._registered) is not self._registered

    @property
    def _pool_yields(self) -> bool:
        return any(each.yields for each in _methods(type(self._instance)).values())

    def _with(self, options: Options) -> Function[P, R]:
        raise InvalidError(
            f"{self.name} shares its workers with all methods of its object.",
            fix=f"Change them together: {self._pool}.with_options(…)(…).{self._method}.",
        )

    def local(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the method here; the object's enter methods run before the first one."""
        if self._raw.__code__.co_flags & CO_COROUTINE:
            return cast(R, _entered_then(self._instance, self._raw, args, kwargs))
        with _entering(self._instance) as todo:
            for hook in todo:
                run_apart(hook())
        return cast(R, self._raw(self._instance, *args, **kwargs))

    def __reduce__(self) -> tuple[Any, ...]:
        return (getattr, (self._instance, self._method))

    def _payload(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        return super()._payload((self._method, *args), kwargs)


class WebMethod(Function[..., Any]):
    """A method that answers requests, on an object of its own in each worker, made without arguments."""

    def __init__(self, cls: type, name: str, raw: Callable[..., Any], registration: Registration) -> None:
        self._cls, self._attribute = cls, name
        self._parameters = packed(cls.__name__, checked_values(cls.__name__, parameters_of(cls), (), {}))
        super().__init__(registration.app, raw, registration.options)

    @property
    def name(self) -> str:
        return f"{self._cls.__name__}.{self._attribute}"

    @property
    def _origin(self) -> Callable[..., Any]:
        return self._cls

    @property
    def _web(self) -> Web | None:
        found = super()._web
        return found._replace(attribute=self._attribute) if found else None

    def _with(self, options: Options) -> Function[..., Any]:
        raise InvalidError(f"{self.name} answers requests as its class says.", fix="Change the class's own settings.")

    def local(self, *args: Any, **kwargs: Any) -> Any:
        raise InvalidError(f"{self.name} answers requests.", fix="Write what is to be called here as a function.")

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self._cls, self._attribute)


def web_methods(cls: type) -> list[WebMethod]:
    """Make functions of those methods of a registered class that answer requests, in their places."""
    registration: Registration = vars(cls)[REGISTRATION]
    marked = {name: member for name, member in members(cls).items() if web_of(member) and callable(member)}
    made = [WebMethod(cls, name, member, registration) for name, member in marked.items()]
    for each in made:
        setattr(cls, each._attribute, each)
    return made


@contextmanager
def _entering(instance: object) -> Iterator[list[Callable[[], object]]]:
    """Gives the hooks that are to be run now, none after the first time."""
    state = vars(instance)
    if state.get(ENTERED):
        yield []
        return
    state[ENTERED] = True
    try:
        yield hooks(instance, SNAP, ENTER)
    except BaseException:
        del state[ENTERED]
        raise


async def _entered_then(
    instance: object, raw: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    with _entering(instance) as todo:
        for hook in todo:
            if isinstance(result := hook(), types.CoroutineType):
                await result
    return await raw(instance, *args, **kwargs)


def _methods(cls: type) -> dict[str, Method[..., Any]]:
    return {name: member for name, member in members(cls).items() if isinstance(member, Method)}


def check_batched(cls: type) -> None:
    if len(_methods(cls)) > 1:
        raise InvalidError(
            f"{cls.__name__} has a batched method, and others beside it.",
            why="all methods share their workers, which gather inputs or do not",
            fix="Move the others to a class of their own.",
        )


def _sharing(cls: type) -> Sharing:
    sharing = sharing_of(cls)
    for each in _methods(cls).values():
        if sharing_of(each.get_raw_f()).batch_size:
            check_batched(cls)
            sharing = joined(sharing, sharing_of(each.get_raw_f()))
    return sharing


def register(app: App, cls: type, options: Options) -> None:
    """Make `cls` a class of `app`. Raises `InvalidError` for what cannot be one."""
    if not isinstance(cls, type):
        raise InvalidError("@app.cls() decorates classes.", fix="Use @app.function() for functions.")
    if REGISTRATION in vars(cls):
        raise InvalidError(f"{cls.__name__} is decorated with @app.cls() already.")
    if members(cls)["__init__"] not in (object.__init__, construct):
        raise InvalidError(
            f"{cls.__name__} has an __init__ of its own.",
            fix="Declare what it takes as `name: str = potluck.parameter()`, and do its work in a method with "
            "@potluck.enter().",
        )
    if not cls.__dictoffset__:
        raise InvalidError(f"{cls.__name__} has __slots__, which leave no room for its parameters.")
    prepare_parameters(cls)
    setattr(cls, "__init__", construct)  # noqa: B010 - a type checker sees what dataclass_transform says
    setattr(cls, REGISTRATION, Registration(app, options.shared(_sharing(cls))))
