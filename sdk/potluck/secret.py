"""`Secret`: variables of a function or build step that must not end up in any image, log or record. Imported with
`potluck`, so it loads nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from potluck.absent import Absent
from potluck.calls import WithAio
from potluck.errors import InvalidError, NotFoundError

if TYPE_CHECKING:
    from datetime import datetime


class Secret(Absent):
    """Names and values; the values are read when a function is first used, or an image about to be built, and never
    shown.

    Names and meaning are Modal's. They stay on the caller's machine until then, and go, sealed, to peers that its node
    trusts alone.
    """

    objects: SecretManager

    def __init__(self, kind: str, read: Callable[[], Mapping[str, str]], name: str | None = None) -> None:
        self._kind, self._read, self._name = kind, read, name
        self.update, self.info, self.hydrate = WithAio(self._update), WithAio(self._info), WithAio(self._hydrate)

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
    def from_name(
        cls, name: str, *, environment_name: str | None = None, required_keys: Collection[str] = ()
    ) -> Secret:
        """One that the local node keeps: `potluck secret create`, or `Secret.objects.create`. When it is used, raises
        `NotFoundError` if there is none, `InvalidError` if it lacks a variable of `required_keys`. `environment_name`
        is passed over."""
        if not isinstance(name, str) or not name:
            raise InvalidError("Secret.from_name() takes a name.", fix="See `potluck secret list`.")
        required = tuple(required_keys)
        return cls("from_name", lambda: _kept(name, required), name)

    @property
    def name(self) -> str | None:
        """Its name, None if it has none."""
        return self._name

    def _update(self, env_dict: Mapping[str, str]) -> None:
        """Add variables to a named one, or replace their values; functions that run keep what they have. Raises
        `InvalidError` for one without a name."""
        from potluck.wire.secrets import MERGE

        _keep(self._named("update"), env_dict, MERGE)

    def _info(self) -> SecretInfo:
        """What may be shown of a named one. Raises `NotFoundError`, `InvalidError`."""
        name = self._named("info")
        for found in _facts():
            if found.name == name:
                return found
        raise NotFoundError(f"There is no secret named {name} on this node.")

    def _hydrate(self) -> Secret:
        """Read the values now, to see that they are there. Returns itself."""
        self._read()
        return self

    def _named(self, method: str) -> str:
        if self._name is None:
            raise InvalidError(f"Secret.{method}() is for secrets with a name.", fix="Use Secret.from_name().")
        return self._name

    def __reduce__(self) -> tuple[object, ...]:
        # Elsewhere there are other variables and files, so the values travel.
        return Secret.from_dict, (dict(values(self)),)

    def __repr__(self) -> str:
        return f"Secret.{self._kind}(…)"


class SecretInfo(NamedTuple):
    """What may be shown of a secret. Times are those of this machine."""

    name: str
    created_at: datetime
    last_used: datetime | None
    variables: tuple[str, ...]


class SecretManager:
    """`Secret.objects`: the named ones on this node."""

    def __init__(self) -> None:
        self.create, self.list, self.delete = WithAio(self._create), WithAio(self._list), WithAio(self._delete)

    def _create(
        self,
        name: str,
        env_dict: Mapping[str, str],
        *,
        allow_existing: bool = False,
        environment_name: str | None = None,
    ) -> None:
        """Keep variables under a name. Raises `AlreadyExistsError` unless `allow_existing`; what is there stays."""
        from potluck.wire.secrets import KEEP, REFUSE

        _keep(name, env_dict, KEEP if allow_existing else REFUSE)

    def _list(
        self,
        *,
        max_objects: int | None = None,
        created_before: datetime | str | None = None,
        environment_name: str = "",
    ) -> list[Secret]:
        """The newest first. `created_before` is a time, or a date as in "2026-01-31"; without a zone, local."""
        from datetime import datetime as time

        before = time.fromisoformat(created_before) if isinstance(created_before, str) else created_before
        found = [each for each in _facts() if before is None or each.created_at < before.astimezone()]
        return [Secret.from_name(each.name) for each in found[:max_objects]]

    def _delete(self, name: str, *, allow_missing: bool = False, environment_name: str | None = None) -> None:
        """Forget one. Raises `NotFoundError` unless `allow_missing`."""
        from potluck.calls import _question
        from potluck.wire.control import Done
        from potluck.wire.secrets import ForgetSecret

        try:
            _question(lambda number: ForgetSecret(number, name), Done)
        except NotFoundError:
            if not allow_missing:
                raise


Secret.objects = SecretManager()


def _keep(name: str, env_dict: Mapping[str, str], existing: str) -> None:
    from potluck.calls import _question
    from potluck.wire.control import Done
    from potluck.wire.secrets import KeepSecret

    given = dict(values(Secret.from_dict(env_dict)))
    _question(lambda number: KeepSecret(number, name, given, existing), Done)


def _facts() -> list[SecretInfo]:
    from datetime import datetime as time

    from potluck.calls import _question
    from potluck.wire.secrets import AskSecrets, Secrets

    def at(time_us: int) -> datetime:
        return time.fromtimestamp(time_us / 1e6).astimezone()

    return [
        SecretInfo(each.name, at(each.created_us), at(each.used_us) if each.used_us else None, each.variables)
        for each in _question(lambda number: AskSecrets(number), Secrets).secrets
    ]


def _kept(name: str, required: tuple[str, ...]) -> dict[str, str]:
    from potluck.calls import _question
    from potluck.wire.secrets import AskSecret, SecretValues

    found = _question(lambda number: AskSecret(number, name), SecretValues).values
    missing = [key for key in required if key not in found]
    if missing:
        raise InvalidError(
            f"The secret {name} lacks {', '.join(missing)}.", fix=f"potluck secret create --merge {name}"
        )
    return found


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
