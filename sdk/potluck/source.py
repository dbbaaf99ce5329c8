"""How a function travels: by name with its source as a layer of the image, or pickled when it has no name to import."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from potluck.serialize import dumps

# Where a function's own source lies in every image; on the module path there.
SOURCE_ROOT = "/app"


class Reference(NamedTuple):
    """Either `module` and `qualname`, with `files` to ship, or `pickled`."""

    module: str = ""
    qualname: str = ""
    pickled: bytes = b""
    files: tuple[tuple[str, str], ...] = ()


def refer(function: Callable[..., Any], *, serialized: bool = False) -> Reference:
    """Decide how `function` travels. Raises `SerializationError` when it must be pickled and cannot be."""
    module = sys.modules.get(function.__module__)
    path = getattr(module, "__file__", None)
    importable = function.__module__ != "__main__" and "<" not in function.__qualname__ and path
    if serialized or not importable:
        kind = "class" if isinstance(function, type) else "function"
        return Reference(pickled=dumps(function, f"{kind} {function.__name__}"))
    return Reference(function.__module__, function.__qualname__, files=_files(function.__module__, Path(str(path))))


def _files(module: str, path: Path) -> tuple[tuple[str, str], ...]:
    """The module's file, or its whole top-level package."""
    depth = module.count(".")
    if path.name == "__init__.py":
        depth += 1
    if not depth:
        return ((f"{SOURCE_ROOT}/{path.name}", str(path.resolve())),)
    package = path.resolve().parents[depth - 1]
    return ((f"{SOURCE_ROOT}/{module.split('.')[0]}", str(package)),)
