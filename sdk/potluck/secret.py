"""`Secret`: environment variables of a build step that must not end up in its image. Imported with `potluck`, so it
loads nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from potluck.absent import Absent
from potluck.errors import InvalidError, NotFoundError


class Secret(Absent):
    """Names and values; the values are read when an image is about to be built, and never shown.

    Names and meaning are Modal's. They stay on the caller's machine until then, and go to whoever builds the image.
    """

    def __init__(self, kind: str, read: Callable[[], Mapping[str, str]]) -> None:
        self._kind, self._read = kind, read

    @classmethod
    def from_dict(cls, env_dict: Mapping[str, str | None]) -> Secret:
        """Values from the program itself; those that are None are left out. Raises `InvalidError` for what cannot be
        a variable."""
        kept = {name: value for name, value in env_dict.items() if value is not None}
        for name, value in kept.items():
            if not isinstance(name, str) or not isinstance(value, str) or not _fits(name, value):
                raise InvalidError(f"Secret.from_dict() cannot set {name!r}.", fix="Names and values are strings.")
        return cls("from_dict", lambda: kept)

    @classmethod
    def from_dotenv(cls, path: str | Path | None = None, *, filename: str = ".env") -> Secret:
        """The variables of the file `filename` in the folder of `path`, by default the current folder, or the nearest
        folder above that has one. Raises `NotFoundError` when the image is about to be built and there is none."""
        start = Path(path) if path is not None else None
        return cls("from_dotenv", lambda: _dotenv(start, filename))

    @classmethod
    def from_local_environ(cls, env_keys: list[str]) -> Secret:
        """Variables of this program's environment. Raises `InvalidError` when the image is about to be built and one
        is not set."""
        if isinstance(env_keys, str):
            raise InvalidError("Secret.from_local_environ() takes a list of names.", fix=f"Write [{env_keys!r}].")
        names = tuple(env_keys)
        return cls("from_local_environ", lambda: _environ(names))

    @classmethod
    def from_name(cls, name: str, **_: object) -> Secret:
        """Not there: Potluck has no server that would keep named secrets."""
        raise InvalidError(
            f"Secret.from_name({name!r}) is not possible: named secrets do not exist yet.",
            why="no server keeps them; values come from the caller's own machine",
            fix="Use Secret.from_dotenv(), Secret.from_local_environ([…]) or Secret.from_dict({…}).",
        )

    def __reduce__(self) -> tuple[object, ...]:
        # Elsewhere there are other variables and files, so the values travel.
        return Secret.from_dict, (dict(values(self)),)

    def __repr__(self) -> str:
        return f"Secret.{self._kind}(…)"


def joined(secrets: tuple[Secret, ...]) -> Secret:
    """All of them as one; the last wins."""

    def read() -> dict[str, str]:
        return {name: value for secret in secrets for name, value in values(secret)}

    return Secret("joined", read)


def values(secret: Secret) -> tuple[tuple[str, str], ...]:
    """Read the values now; sorted by name."""
    return tuple(sorted(secret._read().items()))


def _fits(name: str, value: str) -> bool:
    return bool(name) and "=" not in name and "\0" not in name + value


def _environ(names: tuple[str, ...]) -> dict[str, str]:
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise InvalidError(
            f"A secret needs variables that are not set: {', '.join(missing)}.", fix="Set them where the program runs."
        )
    return {name: os.environ[name] for name in names}


def _dotenv(path: Path | None, filename: str) -> dict[str, str]:
    from dotenv import dotenv_values

    start = (path or Path.cwd()).absolute()
    for folder in (start, *start.parents):
        if (folder / filename).is_file():
            found = dotenv_values(folder / filename, interpolate=False)
            return {name: value for name, value in found.items() if value is not None}
    raise NotFoundError(
        f"A secret needs a file {filename}, and there is none.",
        why=f"neither in {start} nor in a folder above it",
        fix="Make one with lines like NAME=value, or name its folder: Secret.from_dotenv(path).",
    )
