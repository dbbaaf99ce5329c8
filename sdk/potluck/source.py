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


def refer(function: Callable[..., Any], *, serialized: bool = False, include_source: bool = True) -> Reference:
    """Decide how `function` travels; without `include_source` the image has its module. Raises `SerializationError`
    when it must be pickled and cannot be."""
    module = sys.modules.get(function.__module__)
    path = getattr(module, "__file__", None)
    has_module = bool(path) and function.__module__ != "__main__"
    # A closure uses its module, too.
    files = _files(function.__module__, Path(str(path))) if has_module and include_source and not serialized else ()
    files = (*files, *_modal())
    if serialized or not has_module or "<" in function.__qualname__:
        kind = "class" if isinstance(function, type) else "function"
        return Reference(pickled=dumps(function, f"{kind} {function.__name__}"), files=files)
    return Reference(function.__module__, function.__qualname__, files=files)


def _modal() -> tuple[tuple[str, str], ...]:
    """What stands for the module `modal` in the image, where it does so here."""
    potluck_modal = sys.modules.get("potluck.modal")
    if potluck_modal is None or sys.modules.get("modal") is not potluck_modal:
        return ()
    return ((f"{SOURCE_ROOT}/modal.py", str(Path(__file__).with_name("as_modal.py"))),)


def _files(module: str, path: Path) -> tuple[tuple[str, str], ...]:
    """The module's file, or its whole top-level package."""
    depth = module.count(".")
    if path.name == "__init__.py":
        depth += 1
    if not depth:
        return ((f"{SOURCE_ROOT}/{path.name}", str(path.resolve())),)
    package = path.resolve().parents[depth - 1]
    return ((f"{SOURCE_ROOT}/{module.split('.')[0]}", str(package)),)
