"""Reads values that came as data (see `runner.plain`): whatever the bytes are, no code that they choose is run.

Classes are only looked up among the modules that the program has already imported from its own source, and their
objects are made without calling them.
"""

from __future__ import annotations

import builtins
import enum
import importlib
import math
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from potluck import errors
from potluck.errors import SerializationError
from potluck.runner.plain import ARRAY_KINDS, MAGIC, Kind

# As far as they are plain data themselves. Complex structures of numpy and Arrow are checked by those libraries.
_DTYPES_TORCH = (
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "complex64",
    "complex128",
)  # fmt: skip


def is_plain(data: bytes) -> bool:
    """Whether `data` is of this format, and not a pickle."""
    return data[:1] == MAGIC


def loads(data: bytes) -> Any:
    """The value. Raises `SerializationError` for what is damaged, or needs what this program does not have."""
    try:
        return _decode(data[1:])
    except SerializationError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever numpy, torch or a damaged value raise
        raise SerializationError("The value could not be read.", why=f"{type(error).__name__}: {error}") from None


def exception(type_name: str, arguments: bytes) -> BaseException | None:
    """An exception of Python's own, Potluck's, or the program's; None when it is neither. Nothing of it is called."""
    module, _, name = type_name.rpartition(".")
    known = {"": builtins, "builtins": builtins, errors.__name__: errors}.get(module)
    cls = vars(known).get(name) if known else _own_class(module, name)
    if not isinstance(cls, type) or not issubclass(cls, Exception):
        return None
    args, state = loads(arguments) if arguments else ((), {})
    base: Any = next(each for each in cls.__mro__ if each.__module__ == "builtins")
    made: Exception = base.__new__(cls)
    made.args = tuple(args)
    vars(made).update(state)
    return made


def _decode(data: bytes | memoryview) -> Any:
    return msgspec.msgpack.decode(data, ext_hook=_extension)


def _extension(code: int, data: memoryview) -> Any:
    read = _READERS.get(code)
    if read is None:
        raise ValueError(f"extension {code} is unknown")
    return read(data)


def _of(read: Callable[..., Any]) -> Callable[[memoryview], Any]:
    """A reader of a list of arguments."""
    return lambda data: read(*_decode(data))


def _of_raw(read: Callable[..., Any]) -> Callable[[memoryview], Any]:
    """As `_of`, for type, shape and bytes, of which there may be gigabytes: they are read where they lie."""
    return lambda data: read(*_raw_decoder.decode(data))


_raw_decoder = msgspec.msgpack.Decoder(tuple[str, list[int], memoryview])


def _array(dtype: str, shape: list[int], data: memoryview) -> Any:
    numpy: Any = importlib.import_module("numpy")
    kind = numpy.dtype(dtype)
    if kind.kind not in ARRAY_KINDS or kind.subdtype is not None:
        raise ValueError(f"{dtype!r} is no plain type of elements")
    sizes = _sizes(shape, len(data) // kind.itemsize if kind.itemsize else 0)
    return numpy.frombuffer(data, kind).reshape(sizes).copy() if data else numpy.empty(sizes, kind)


def _sizes(shape: list[int], elements: int) -> list[int]:
    """A shape of exactly so many elements, so that none is made larger than what was sent."""
    sizes = [int(each) for each in shape]
    if math.prod(sizes) != elements or min(sizes, default=0) < 0:
        raise ValueError(f"the shape {sizes} is not that of {elements} elements")
    return sizes


def _tensor(dtype: str, shape: list[int], data: memoryview) -> Any:
    torch: Any = importlib.import_module("torch")
    if dtype not in _DTYPES_TORCH:
        raise ValueError(f"{dtype!r} is no plain type of elements")
    kind = getattr(torch, dtype)
    sizes = _sizes(shape, len(data) // kind.itemsize)
    return torch.frombuffer(bytearray(data), dtype=kind).reshape(sizes) if data else torch.empty(sizes, dtype=kind)


def _table(whole: bool, data: bytes) -> Any:
    pyarrow: Any = importlib.import_module("pyarrow")
    with pyarrow.ipc.open_stream(data) as reader:
        table = reader.read_all()
    return table if whole else table.combine_chunks().to_batches()[0]


def _dataclass(name: list[str], fields: dict[str, Any]) -> Any:
    cls = _found(name)
    known = getattr(cls, "__dataclass_fields__", None)
    if known is None or fields.keys() - known.keys():
        raise ValueError(f"{name[1]} is no dataclass with these fields")
    made: Any = object.__new__(cls)
    for field, value in fields.items():
        object.__setattr__(made, field, value)
    return made


def _enum(name: list[str], member: str) -> Any:
    cls = _found(name)
    if not issubclass(cls, enum.Enum):
        raise ValueError(f"{name[1]} is no enumeration")
    return cls.__members__[member]


def _namedtuple(name: list[str], values: list[Any]) -> Any:
    cls = _found(name)
    if not issubclass(cls, tuple) or len(getattr(cls, "_fields", ())) != len(values):
        raise ValueError(f"{name[1]} is no named tuple of {len(values)}")
    return tuple.__new__(cls, values)


def _found(name: list[str]) -> type:
    module, qualname = name
    cls = _own_class(module, qualname)
    if not isinstance(cls, type):
        raise SerializationError(
            f"The result has an object of the class {module}.{qualname}, which this program does not have.",
            why="classes are only looked up in the program's own modules, as the peer that sent it is not trusted",
            fix="Define it in a module of your own and import that; or name the peer in the setting `trust`.",
        )
    return cls


def _own_class(module: str, qualname: str) -> object:
    """What the program's own source defines under this name, without importing or running anything."""
    holder: Any = sys.modules.get(module)
    if holder is None or not _is_own(holder):
        return None
    found: Any = holder
    for part in qualname.split("."):
        found = vars(found).get(part) if isinstance(found, type) or found is holder else None
    return found if isinstance(found, type) and found.__module__ == module else None


def _is_own(module: Any) -> bool:
    """Whether a module is the program's: not of the standard library, and not installed."""
    path = getattr(module, "__file__", None)
    if path is None:
        return str(module.__name__) == "__main__"
    place = Path(path).resolve()
    return not any(place.is_relative_to(Path(folder).resolve()) for folder in _INSTALLED)


_INSTALLED = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {str(Path(__file__).resolve().parent)}
)


def _named(module: str, name: str) -> Callable[..., Any]:
    """Something of the standard library that is imported when it is first needed."""

    def call(*args: Any, **kwargs: Any) -> Any:
        holder: Any = importlib.import_module(module)
        for part in name.split("."):
            holder = getattr(holder, part)
        return holder(*args, **kwargs)

    return call


_READERS: dict[int, Callable[[memoryview], Any]] = {
    Kind.TUPLE: lambda data: tuple(_decode(data)),
    Kind.PAIRS: lambda data: dict(_decode(data)),
    Kind.SET: lambda data: set(_decode(data)),
    Kind.FROZENSET: lambda data: frozenset(_decode(data)),
    Kind.INT: lambda data: int.from_bytes(data, "big", signed=True),
    Kind.COMPLEX: _of(complex),
    Kind.BYTEARRAY: bytearray,
    Kind.RANGE: _of(range),
    Kind.DATETIME: lambda data: _named("datetime", "datetime.fromisoformat")(_decode(data)),
    Kind.DATE: lambda data: _named("datetime", "date.fromisoformat")(_decode(data)),
    Kind.TIME: lambda data: _named("datetime", "time.fromisoformat")(_decode(data)),
    Kind.TIMEDELTA: _of(_named("datetime", "timedelta")),
    Kind.DECIMAL: lambda data: _named("decimal", "Decimal")(_decode(data)),
    Kind.FRACTION: _of(_named("fractions", "Fraction")),
    Kind.UUID: lambda data: _named("uuid", "UUID")(bytes=bytes(data)),
    Kind.PATH: lambda data: Path(_decode(data)),
    Kind.ARRAY: _of_raw(_array),
    Kind.SCALAR: lambda data: _of_raw(_array)(data)[()],
    Kind.TENSOR: _of_raw(_tensor),
    Kind.TABLE: _of(_table),
    Kind.DATACLASS: _of(_dataclass),
    Kind.ENUM: _of(_enum),
    Kind.NAMEDTUPLE: _of(_namedtuple),
}
