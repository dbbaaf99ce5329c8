"""Which app is meant by `FILE.py[::APP]`."""

from __future__ import annotations

from types import ModuleType

from potluck.app import App
from potluck.cli.run import load, no_app
from potluck.errors import InvalidError, NotFoundError


def find_app(target: str) -> App:
    """Import the file, or module, and choose its app, by variable or by name.

    Raises `NotFoundError` when there is none, `InvalidError` when there are several and none was chosen.
    """
    path, _, chosen = target.partition("::")
    found = apps_in(load(path))
    apps = {id(app): app for app in found.values()}
    if not apps:
        raise no_app(path)
    if chosen:
        return _chosen(found, chosen, path)
    if len(apps) > 1:
        choices = ", ".join(f"{path}::{name}" for name in found)
        raise InvalidError(f"{path} has {len(apps)} apps.", fix=f"Choose one: {choices}")
    return next(iter(apps.values()))


def apps_in(module: ModuleType) -> dict[str, App]:
    """The variables of a module that are apps."""
    return {name: value for name, value in vars(module).items() if isinstance(value, App)}


def _chosen(found: dict[str, App], chosen: str, path: str) -> App:
    """The app in this variable, or else the one with this name."""
    named = (app for app in found.values() if app.name == chosen)
    app = found.get(chosen) or next(named, None)
    if app is None:
        raise NotFoundError(f"{path} has no app named {chosen}.", why=f"it has: {', '.join(found)}")
    return app
