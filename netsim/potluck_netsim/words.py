"""Events, actions and messages in one short line each, for traces and stories."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable
from typing import Any, cast

from potluck.wire import Failure, FunctionSpec, RemoteException

# Longer texts are cut, so that a line of a story fits a screen.
TEXT_MAX = 60
_DULL = frozenset({"protocol", "version", "tier", "now_us", "meter"})


def clock(us: int) -> str:
    """Microseconds since the beginning, as minutes, seconds and microseconds."""
    return f"{us // 60_000_000:02d}:{us // 1_000_000 % 60:02d}.{us % 1_000_000:06d}"


def tell(thing: object) -> str:
    """The name of a dataclass or struct and what matters of its fields."""
    words = [_word(getattr(thing, name)) for name in _fields(cast(Hashable, type(thing)))]
    return " ".join([type(thing).__name__, *(word for word in words if word)])


@functools.cache
def _fields(kind: Hashable) -> tuple[str, ...]:
    struct: Any = kind
    names = getattr(struct, "__struct_fields__", None) or tuple(field.name for field in dataclasses.fields(struct))
    return tuple(name for name in names if name not in _DULL)


def _word(value: object) -> str:
    if isinstance(value, str):
        return value[:TEXT_MAX]
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, bytes):
        return value[:TEXT_MAX].decode() if value.isascii() else f"<{len(value)} bytes>"
    if isinstance(value, FunctionSpec):
        return value.name
    if isinstance(value, Failure):
        return f"{value.kind}: {value.what[:TEXT_MAX]}"
    if isinstance(value, RemoteException):
        return value.type_name
    if value is None or isinstance(value, tuple | dict):
        return ""
    return f"({tell(value)})"
