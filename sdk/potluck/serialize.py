"""Pickling of arguments, functions and results, with errors that name the attribute at fault."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from potluck.errors import DeserializationError, SerializationError
from potluck.frames import PAYLOAD_BYTES_MAX
from potluck.runner.memory import INLINE_BYTES_MAX, hold
from potluck.runner.pickles import dump, load
from potluck.runner.unpicklable import FIX, WHY, unpicklable_path

if TYPE_CHECKING:
    from potluck.runner.pickles import Buffer

__all__ = ["dumps", "explain", "loads", "unpicklable_path"]


def dumps(value: object, what: str) -> bytes:
    """Pickle `value` (protocol 5, functions and classes of `__main__` by value).

    What is large is a `memoryview` of sealed memory instead of bytes: written once, and then only passed on.
    `what` names it in the `SerializationError` that is raised when a part of it cannot be pickled, or it is too large.
    """
    import cloudpickle

    try:
        parts = dump(cloudpickle.dumps, value)
    except Exception:  # noqa: BLE001 - pickling runs foreign code, which raises what it likes
        raise explain(value, what) from None
    size = sum(map(len, parts))
    return b"".join(parts) if size <= INLINE_BYTES_MAX else cast(bytes, _held(parts, size, what))


def _held(parts: list[Buffer], size: int, what: str) -> memoryview:
    if size > PAYLOAD_BYTES_MAX:
        raise SerializationError(
            f"{what}: {size >> 20} MiB; at most {PAYLOAD_BYTES_MAX >> 20} MiB can be sent.",
            fix="Put large data into the image or a volume, or send it in parts with .map.",
        )
    try:
        return hold(parts)
    except OSError as error:
        raise SerializationError(
            f"{what}: there is no memory for {size >> 20} MiB.",
            why=str(error),
            fix="Send less at once, or close files if there are too many.",
        ) from error


def loads(data: bytes) -> Any:
    """A value from data or a pickle. The latter runs code that `data` chooses: the node passes on only those of peers
    that the user trusts.

    Raises `DeserializationError`.
    """
    from potluck import plain

    if plain.is_plain(data):
        return plain.loads(data)
    try:
        return load(data)
    except Exception as error:
        raise DeserializationError(
            "The value could not be unpickled.",
            why=f"{type(error).__name__}: {error}",
            fix="Both sides need the same modules, in versions whose pickles fit.",
        ) from error


def explain(value: object, what: str) -> SerializationError:
    """The error for a `value` that cannot be pickled."""
    path, why = unpicklable_path(value, what)
    return SerializationError(f"{path}: {why}", why=WHY, fix=FIX)
