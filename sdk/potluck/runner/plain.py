"""Values as data: what a caller can rebuild without running code of whoever sent it.

MessagePack behind one byte that no pickle begins with; what MessagePack lacks are extensions, named in `Kind`.
`potluck.plain` reads it, and `tests/sdk/test_plain.py` holds the two together.
"""

from __future__ import annotations

import struct
import sys

from .failures import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Buffer = bytes | bytearray | memoryview

# Never used by MessagePack, and not how a pickle begins.
MAGIC = b"\xc1"

# Smaller arrays are copied, bytes: a part of its own costs more.
RAW_BYTES_MIN = 16 << 10

# Deeper than people nest, and far from where the interpreter ends.
DEPTH_MAX = 100


class Kind:
    """Numbers of the extensions."""

    TUPLE, PAIRS, SET, FROZENSET, INT, COMPLEX, BYTEARRAY = 1, 2, 3, 4, 5, 6, 7
    DATETIME, DATE, TIME, TIMEDELTA, DECIMAL, FRACTION, UUID, PATH, RANGE = 10, 11, 12, 13, 14, 15, 16, 17, 18
    ARRAY, SCALAR, TENSOR, TABLE = 20, 21, 22, 23
    DATACLASS, ENUM, NAMEDTUPLE = 30, 31, 32


# Kinds of elements (numpy.dtype.kind) that are numbers, times or text of a fixed size: their bytes are all there is.
ARRAY_KINDS = "biufcmMSU"


class _Raw:
    """The bytes of an array, which are only read when the value is sent."""

    def __init__(self, view: memoryview) -> None:
        self.view = view


def dumps(value: object, what: str = "result") -> bytes:
    """`value` as data. Raises `Refusal` that names the part which cannot be."""
    return b"".join(dump(value, what))


def dump(value: object, what: str = "result") -> list[Buffer]:
    """As `dumps`, in parts; those of large arrays lie where the arrays are."""
    parts: list[Buffer] = [MAGIC]
    _put(value, parts, what, DEPTH_MAX)
    return parts


def _put(value: Any, parts: list[Buffer], path: str, depth: int) -> None:
    if depth == 0:
        raise _refused(path, "it is nested too deep")
    kind = type(value)
    simple = _SIMPLE.get(kind)
    if simple is not None:
        parts.append(simple(value))
    elif kind is _Raw:
        parts += (struct.pack(">BI", 0xC6, len(value.view)), value.view)
    elif kind is list:
        parts.append(_head(0xDD, len(value)))
        for number, each in enumerate(value):
            _put(each, parts, f"{path}[{number}]", depth - 1)
    elif kind is dict and all(type(key) is str for key in value):
        parts.append(_head(0xDF, len(value)))
        for key, each in value.items():
            parts.append(_str(key))
            _put(each, parts, f"{path}[{key!r:.40}]", depth - 1)
    else:
        code, inner = _extension(value, kind, path)
        body: list[Buffer] = []
        if isinstance(inner, bytes):
            body.append(inner)
        else:
            _put(inner, body, path, depth - 1)
        size = sum(map(len, body))
        parts.append(struct.pack(">BIb", 0xC9, size, code))
        parts += body


def _extension(value: Any, kind: type, path: str) -> tuple[int, Any]:
    """The number of the extension, and its content: bytes, or a value to be written in turn."""
    plain = _PLAIN.get(kind)
    if plain is not None:
        code, content = plain
        return code, content(value)
    named = _NAMED.get(f"{kind.__module__}.{kind.__qualname__}")
    if named is not None:
        return named[0], named[1](value)
    for module, check in (("numpy", _numpy), ("torch", _torch), ("pyarrow", _arrow)):
        if module in sys.modules and (found := check(sys.modules[module], value, path)) is not None:
            return found
    return _of_class(value, kind, path)


def _of_class(value: Any, kind: type, path: str) -> tuple[int, Any]:
    """Instances of the user's own classes: their fields are data, and the caller has the class."""
    name = [kind.__module__, kind.__qualname__]
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return Kind.NAMEDTUPLE, [name, list(value)]
    if hasattr(kind, "__dataclass_fields__"):
        fields = {field: getattr(value, field) for field in kind.__dataclass_fields__ if hasattr(value, field)}
        return Kind.DATACLASS, [name, fields]
    if "enum" in sys.modules and isinstance(value, sys.modules["enum"].Enum):
        return Kind.ENUM, [name, getattr(value, "name")]  # noqa: B009
    raise _refused(path, f"{kind.__module__}.{kind.__qualname__} is no plain value")


def _numpy(numpy: Any, value: Any, path: str) -> tuple[int, Any] | None:
    if not isinstance(value, numpy.ndarray | numpy.generic):
        return None
    if type(value) is not numpy.ndarray and not isinstance(value, numpy.generic):
        raise _refused(path, f"{type(value).__name__} is a special array")
    if value.dtype.kind not in ARRAY_KINDS or value.dtype.subdtype is not None:
        raise _refused(path, f"its elements are of type {value.dtype}")
    code = Kind.SCALAR if isinstance(value, numpy.generic) else Kind.ARRAY
    return code, [value.dtype.str, list(value.shape), _bytes_of(numpy, value)]


def _bytes_of(numpy: Any, value: Any) -> bytes | _Raw:
    if value.nbytes < RAW_BYTES_MIN:
        return bytes(value.tobytes())
    return _Raw(memoryview(numpy.ascontiguousarray(value).reshape(-1).view(numpy.uint8)))


def _torch(torch: Any, value: Any, path: str) -> tuple[int, Any] | None:
    if type(value) is not torch.Tensor:
        return None
    if value.layout is not torch.strided or value.is_quantized:
        raise _refused(path, "it is a sparse or quantized tensor")
    flat = value.detach().cpu().contiguous().reshape(-1)
    data = _Raw(memoryview(flat.view(torch.uint8).numpy())) if flat.numel() else b""
    return Kind.TENSOR, [str(value.dtype).removeprefix("torch."), list(value.shape), data]


def _arrow(arrow: Any, value: Any, path: str) -> tuple[int, Any] | None:
    if not isinstance(value, arrow.Table | arrow.RecordBatch):
        return None
    sink = arrow.BufferOutputStream()
    with arrow.ipc.new_stream(sink, value.schema) as writer:
        writer.write(value)
    return Kind.TABLE, [isinstance(value, arrow.Table), sink.getvalue().to_pybytes()]


def _refused(path: str, why: str) -> Refusal:
    return Refusal(
        "serialization",
        f"{path} cannot be sent as data: {why}.",
        why="the caller does not trust this peer, so it takes nothing that would run code to be rebuilt",
        fix="Return plain values, numpy arrays, tensors, tables or dataclasses; or name this peer in the setting "
        "`trust` of the caller's node.",
    )


def _head(code: int, size: int) -> bytes:
    return struct.pack(">BI", code, size)


def _int(value: int) -> bytes:
    if -(1 << 63) <= value < 1 << 63:
        return struct.pack(">Bq", 0xD3, value)
    if 0 <= value < 1 << 64:
        return struct.pack(">BQ", 0xCF, value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)
    return struct.pack(">BIb", 0xC9, len(data), Kind.INT) + data


def _str(value: str) -> bytes:
    data = value.encode("utf-8", "replace")
    return _head(0xDB, len(data)) + data


def _ordered(value: Iterable[Any]) -> list[Any]:
    return list(value)


def _sorted(value: Iterable[Any]) -> list[Any]:
    """A set has no order that two processes share: with this, equal sets are equal bytes."""
    return sorted(value, key=_bytes_or_nothing)


def _bytes_or_nothing(value: Any) -> bytes:
    """What cannot be written is refused later, by its path."""
    try:
        return dumps(value)
    except Refusal:
        return b""


_SIMPLE: dict[type, Any] = {
    type(None): lambda _: b"\xc0",
    bool: lambda value: b"\xc3" if value else b"\xc2",
    int: _int,
    float: lambda value: struct.pack(">Bd", 0xCB, value),
    str: _str,
    bytes: lambda value: _head(0xC6, len(value)) + value,
}
_PLAIN: dict[type, tuple[int, Any]] = {
    tuple: (Kind.TUPLE, _ordered),
    dict: (Kind.PAIRS, lambda value: [[key, each] for key, each in value.items()]),
    set: (Kind.SET, _sorted),
    frozenset: (Kind.FROZENSET, _sorted),
    complex: (Kind.COMPLEX, lambda value: [value.real, value.imag]),
    bytearray: (Kind.BYTEARRAY, bytes),
    range: (Kind.RANGE, lambda value: [value.start, value.stop, value.step]),
}
# By name, so that nothing is imported only to be compared with.
_NAMED: dict[str, tuple[int, Any]] = {
    "datetime.datetime": (Kind.DATETIME, lambda value: value.isoformat()),
    "datetime.date": (Kind.DATE, lambda value: value.isoformat()),
    "datetime.time": (Kind.TIME, lambda value: value.isoformat()),
    "datetime.timedelta": (Kind.TIMEDELTA, lambda value: [value.days, value.seconds, value.microseconds]),
    "decimal.Decimal": (Kind.DECIMAL, str),
    "fractions.Fraction": (Kind.FRACTION, lambda value: [value.numerator, value.denominator]),
    "uuid.UUID": (Kind.UUID, lambda value: value.bytes),
    "pathlib.PosixPath": (Kind.PATH, str),
    "pathlib.PurePosixPath": (Kind.PATH, str),
}
