"""`potluck.parameter()`: what an object of an `@app.cls()` class is made with."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from potluck.errors import InvalidError
from potluck.runner.codec import pack
from potluck.runner.service import members

T = TypeVar("T")

# Parameters name a pool of workers and travel with each lease; data belongs into arguments. Bytes, packed.
PARAMETERS_BYTES_MAX = 64 << 10

# Key in an object's `__dict__`: its parameters, packed in one way only, so that equal ones share workers.
PARAMETERS = "_potluck_parameters"

# As in Modal: what has one form on the wire and one meaning on every machine.
_KINDS = (str, int, bool, bytes)


class _Required:
    """Stands for a default; a class, since it is still itself after a pickle."""


@overload
def parameter(*, default: T, init: bool = True) -> T: ...
@overload
def parameter(*, init: bool = True) -> Any: ...
def parameter(*, default: Any = _Required, init: bool = True) -> Any:
    """Declare a parameter in a class body: `name: str = potluck.parameter(default="small")`.

    Types are str, int, bool and bytes. With `init=False` it is no parameter, but an attribute that is set later, as
    type checkers want to know it.
    """
    return Parameter(default, init)


class Parameter:
    """Stands in the class for an attribute of its objects."""

    def __init__(self, default: Any, init: bool) -> None:
        self.default, self.init = default, init
        self.kind: type = str
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> Any:
        """Only asked while the object has no such attribute."""
        if instance is None:
            return self
        if self.default is _Required:
            raise AttributeError(f"{self._name} of {owner.__name__} has no value yet")
        return self.default

    @classmethod
    def needed(cls) -> Parameter:
        """One without a default."""
        return cls(_Required, True)

    @property
    def required(self) -> bool:
        return self.default is _Required

    def check(self, what: str, value: object) -> None:
        """Raises `InvalidError`."""
        why = ""
        if type(value) is not self.kind:
            why = f"it is a {type(value).__name__}, not a {self.kind.__name__}"
        elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
            why = "it has more than 64 bits"
        elif isinstance(value, str) and value.encode("utf-8", "ignore").decode() != value:
            why = "its text cannot be written in UTF-8"
        if why:
            raise InvalidError(f"{what} cannot have this value.", why=why)


def prepare_parameters(cls: type) -> None:
    """Find the types of the parameters. Raises `InvalidError` for those that cannot be."""
    for base in cls.__mro__:
        for name, member in vars(base).items():
            if isinstance(member, Parameter) and member.init:
                member.kind = _kind(base, name)
                if not member.required:
                    member.check(f"The default of the parameter {base.__name__}.{name}", member.default)


def _kind(cls: type, name: str) -> type:
    annotation = cls.__annotations__.get(name)
    for kind in _KINDS:
        if annotation in (kind, kind.__name__):
            return kind
    raise InvalidError(
        f"The parameter {cls.__name__}.{name} has no type that a parameter can have.",
        why="it has no annotation" if annotation is None else f"its annotation is {annotation!r}",
        fix="Annotate it as str, int, bool or bytes, or write parameter(init=False) if it is none.",
    )


def parameters_of(cls: type) -> dict[str, Parameter]:
    """Those that an object can be made with."""
    return {key: each for key, each in members(cls).items() if isinstance(each, Parameter) and each.init}


def construct(self: object, *args: Any, **kwargs: Any) -> None:
    """The `__init__` of every `@app.cls()` class."""
    name = type(self).__name__
    values = checked_values(name, parameters_of(type(self)), args, kwargs)
    for key, value in values.items():
        setattr(self, key, value)
    vars(self)[PARAMETERS] = packed(name, values)


def checked_values(
    name: str, known: dict[str, Parameter], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """All parameters of a new object of the class `name`, with defaults. Raises `InvalidError`."""
    if args:
        raise InvalidError(f"{name}() takes its parameters by name.", fix=_usage(name, known))
    for key in kwargs.keys() - known:
        raise InvalidError(f"{name}() has no parameter {key}.", fix=_usage(name, known))
    for key, each in known.items():
        if key not in kwargs and each.required:
            raise InvalidError(f"{name}() needs the parameter {key}.", fix=_usage(name, known))
    values = {key: kwargs.get(key, each.default) for key, each in known.items()}
    for key, value in values.items():
        known[key].check(f"The parameter {key} of {name}()", value)
    return values


def packed(name: str, values: dict[str, Any]) -> bytes:
    """In one way only, so that equal ones share workers. Raises `InvalidError`."""
    data = pack(sorted(values.items()))
    if len(data) > PARAMETERS_BYTES_MAX:
        raise InvalidError(
            f"The parameters of {name}() have {len(data)} bytes; at most {PARAMETERS_BYTES_MAX} are possible.",
            fix="Give data as an argument of a method.",
        )
    return data


def _usage(name: str, known: dict[str, Parameter]) -> str:
    return f"Write {name}({', '.join(f'{key}={each.kind.__name__}(…)' for key, each in known.items())})."
