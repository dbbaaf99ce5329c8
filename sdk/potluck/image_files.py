"""Local files and functions for images, looked at when an image is about to be built."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from potluck.errors import InvalidError
from potluck.serialize import dumps
from potluck.source import SOURCE_ROOT

Ignore = Sequence[str] | Callable[[Path], bool]

# A description travels to the node in one frame of 1 MiB; data belongs into files.
CALL_BYTES_MAX = 512 << 10

# All but Python's own source.
NON_PYTHON = ("**", "!**/*.py")


def patterns(folder: str, ignore: Ignore) -> tuple[str, ...]:
    """Ignore patterns as they are; what a function says, as one pattern for each path that it names."""
    if not callable(ignore):
        return tuple([ignore] if isinstance(ignore, str) else ignore)
    found = []
    for parent, folders, files in os.walk(folder):
        for name in sorted([*folders, *files]):
            path = Path(parent, name).relative_to(folder)
            if ignore(path):
                found.append(_literally(str(path)))
                folders[:] = [each for each in folders if each != name]
    return tuple(found)


def _literally(path: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", path)


def module_files(name: str, ignore: Ignore | None) -> list[tuple[str, str, tuple[str, ...]]]:
    """(path in the image, local path, ignored) of a module. Raises `InvalidError` when it cannot be found."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError) as error:
        raise _no_module(name, str(error)) from None
    target = f"{SOURCE_ROOT}/{name.replace('.', '/')}"
    if spec is not None and spec.submodule_search_locations:
        chosen = NON_PYTHON if ignore is None else ignore
        return [(target, place, patterns(place, chosen)) for place in spec.submodule_search_locations]
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        raise _no_module(name, "no file with source belongs to it")
    return [(f"{target}.py", spec.origin, ())]


def _no_module(name: str, why: str) -> InvalidError:
    return InvalidError(
        f"add_local_python_source() finds no module {name!r}.", why=why, fix="Name what this program can import."
    )


def call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    """A call as `run_function` sends it: the function by value. Raises `SerializationError`, `InvalidError`."""
    import cloudpickle

    raw = getattr(function, "get_raw_f", lambda: function)()
    module = sys.modules.get(raw.__module__)
    by_value = module is not None and raw.__module__ != "__main__"
    if by_value:
        cloudpickle.register_pickle_by_value(module)
    try:
        data = dumps((raw, args, dict(kwargs)), f"run_function({raw.__name__})")
    finally:
        if by_value:
            cloudpickle.unregister_pickle_by_value(module)
    if len(data) > CALL_BYTES_MAX:
        raise InvalidError(
            f"run_function({raw.__name__}) has {len(data) >> 10} KiB of code and arguments.",
            why=f"at most {CALL_BYTES_MAX >> 10} KiB travel with an image's description",
            fix="Add data with add_local_file(…, copy=True) and read it in the function.",
        )
    return data
