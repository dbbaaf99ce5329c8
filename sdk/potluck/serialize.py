"""Pickling of arguments, functions and results, with errors that name the attribute at fault."""

from __future__ import annotations

import pickle
from typing import Any

from potluck.errors import SerializationError
from potluck.runner.unpicklable import FIX, WHY, unpicklable_path

__all__ = ["dumps", "explain", "loads", "unpicklable_path"]


def dumps(value: object, what: str) -> bytes:
    """Pickle `value` (protocol 5, functions and classes of `__main__` by value).

    `what` names it in the `SerializationError` that is raised when a part of it cannot be pickled.
    """
    import cloudpickle

    try:
        data: bytes = cloudpickle.dumps(value, protocol=5)
    except Exception:  # noqa: BLE001 - pickling runs foreign code, which raises what it likes
        raise explain(value, what) from None
    return data


def loads(data: bytes) -> Any:
    """Unpickle. Runs code that `data` chooses: only for bytes of a peer that the user trusts.

    Raises `SerializationError`.
    """
    try:
        return pickle.loads(data)
    except Exception as error:
        raise SerializationError(
            "The value could not be unpickled.",
            why=f"{type(error).__name__}: {error}",
            fix="Both sides need the same modules, in versions whose pickles fit.",
        ) from error


def explain(value: object, what: str) -> SerializationError:
    """The error for a `value` that cannot be pickled."""
    path, why = unpicklable_path(value, what)
    return SerializationError(f"{path}: {why}", why=WHY, fix=FIX)
