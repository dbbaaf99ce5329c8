"""Packages named by a project's files: pyproject.toml, and the lock of Poetry."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable
from typing import Any

from potluck.errors import InvalidError

# The first format that says which group needs a package, and for which machines.
POETRY_LOCK_MIN = (2, 1)


def pyproject(path: str, extras: Iterable[str]) -> tuple[str, ...]:
    """`project.dependencies` and those of `extras`, sorted. Raises `InvalidError`."""
    project = _read(path).get("project")
    if not isinstance(project, dict):
        raise InvalidError(f"{path} has no [project] table.", fix="Use poetry_install_from_file() for Poetry's own.")
    found = list(project.get("dependencies", []))
    optional = project.get("optional-dependencies", {})
    for extra in extras:
        if extra not in optional:
            raise InvalidError(
                f"{path} has no extra {extra!r}.", fix=f"It has: {', '.join(sorted(optional)) or 'none'}."
            )
        found += optional[extra]
    return tuple(sorted(found))


def poetry(project: str, lock: str, with_: Iterable[str], without: Iterable[str], only: Iterable[str]) -> str:
    """The locked packages of the chosen groups as a requirements file with hashes.

    The format is that of poetry.lock, versions 2.x (https://python-poetry.org). Raises `InvalidError`.
    """
    locked = _read(lock)
    version = str(locked.get("metadata", {}).get("lock-version", "0"))
    if tuple(int(part) for part in version.split(".") if part.isdigit()) < POETRY_LOCK_MIN:
        raise InvalidError(f"{lock} has format {version}, which is too old.", fix="Run `poetry lock` with Poetry 2.")
    chosen = _groups(_read(project), set(with_), set(without), set(only))
    lines = [_requirement(package, chosen, lock) for package in locked.get("package", [])]
    return "\n".join(line for line in lines if line) + "\n"


def _groups(project: dict[str, Any], with_: set[str], without: set[str], only: set[str]) -> set[str]:
    """As `poetry install` chooses: all but the optional ones."""
    if only:
        return only
    named = project.get("tool", {}).get("poetry", {}).get("group", {})
    plain = {name for name, group in named.items() if not group.get("optional")}
    return ({"main"} | plain | set(project.get("dependency-groups", {})) | with_) - without


def _requirement(package: dict[str, Any], chosen: set[str], lock: str) -> str:
    groups = [group for group in package.get("groups", ["main"]) if group in chosen]
    if not groups or package.get("optional"):
        return ""
    if package.get("source", {}).get("type", "legacy") not in ("legacy", "pypi"):
        raise InvalidError(
            f"{lock} takes {package['name']} from a {package['source']['type']}, which cannot be checked by a hash.",
            fix="Add it with pip_install() or add_local_python_source(), and leave its group out.",
        )
    marker = _marker(package.get("markers", ""), groups)
    hashes = "".join(f" --hash={file['hash']}" for file in package.get("files", []))
    return f"{package['name']}=={package['version']}{f' ; {marker}' if marker else ''}{hashes}"


def _marker(markers: str | dict[str, str], groups: list[str]) -> str:
    """One for the package, or one for each group; a group without one needs it everywhere."""
    if isinstance(markers, str):
        return markers
    found = [markers.get(group, "") for group in groups]
    return " or ".join(f"({marker})" for marker in found) if all(found) else ""


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except (OSError, ValueError) as error:
        raise InvalidError(
            f"{os.path.basename(path)} cannot be read.", why=str(error), fix=f"Look at {path}."
        ) from None
