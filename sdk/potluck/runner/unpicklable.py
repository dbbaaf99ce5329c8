"""Finds the part of an object that cannot be pickled; used by the caller and in the sandbox."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import FunctionType

# How deep and how wide the search goes: it pickles each part again, and must end on any object.
DEPTH_MAX = 32
PARTS_MAX = 1000

TOO_DEEP = "is nested too deeply to be pickled"
WHY = "Locks, open files, sockets, generators and handles of a device live in one process and cannot be sent."
FIX = "Leave it out, create it inside the function, or define __getstate__ on its class."


def unpicklable_path(value: object, name: str = "value") -> tuple[str, str]:
    """Where in `value` pickling fails, as Python would write it ("result['model'].lock"), and the reason."""
    path, why = name, _reason(value) or "can be pickled alone, not as part of the whole"
    for _ in range(0 if why == TOO_DEEP else DEPTH_MAX):
        culprit = _first_unpicklable(value)
        if culprit is None:
            break
        label, value, why = culprit
        path += label
    return path, why


def _first_unpicklable(value: object) -> tuple[str, object, str] | None:
    for number, (label, part) in enumerate(_parts(value)):
        if number >= PARTS_MAX:
            break
        if (why := _reason(part)) is not None:
            return label, part, why
    return None


def _reason(value: object) -> str | None:
    """Why `value` cannot be pickled; None when it can."""
    import cloudpickle

    try:
        cloudpickle.dumps(value, protocol=5)
    except Exception as error:  # noqa: BLE001 - pickling runs foreign code
        if isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError):
            return TOO_DEEP
        return str(error) or type(error).__name__
    return None


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """What `value` is made of, as far as pickle looks at it."""
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))
    elif isinstance(value, set | frozenset):
        yield from ((f"{{{item!r}}}", item) for item in value)
    elif isinstance(value, FunctionType):
        yield from _function_parts(value)
    yield from ((f".{key}", item) for key, item in _state(value).items())


def _function_parts(function: FunctionType) -> Iterator[tuple[str, object]]:
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or (), strict=False):
        yield f" (its closure variable {name})", cell.cell_contents
    for name in function.__code__.co_names:
        if name in function.__globals__:
            yield f" (its global {name})", function.__globals__[name]


def _state(value: object) -> dict[str, object]:
    if isinstance(value, type | FunctionType):
        return {}
    try:
        state = value.__getstate__() if hasattr(value, "__getstate__") else getattr(value, "__dict__", {})
    except Exception:  # noqa: BLE001 - foreign code
        return {}
    merged: dict[str, object] = {}
    for part in state if isinstance(state, tuple) else (state,):
        if isinstance(part, dict):
            merged |= {str(key): item for key, item in part.items()}
    return merged
