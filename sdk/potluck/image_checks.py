"""Checks of what `Image`'s methods are given. Imported with `potluck`, so it loads nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence

from potluck.errors import InvalidError, PythonVersionError
from potluck.gpus import checked_gpus
from potluck.secret import Secret, joined


def image_id(given: str) -> str:
    """Raises `InvalidError` for what is none."""
    found = given.removeprefix("im-").lower()
    if len(found) != 64 or set(found) - set("0123456789abcdef"):
        raise InvalidError(f"{given!r} is not the id of an image.", fix="They have 64 hex digits: `potluck image ls`.")
    return found


def own_version() -> str:
    """The "major.minor.micro" of this program."""
    return "{}.{}.{}".format(*sys.version_info[:3])


def same_python(method: str, wanted: str | None) -> None:
    """Raises `PythonVersionError` for another "major.minor" than the caller's."""
    own = own_version()
    if wanted is not None and wanted.split(".")[:2] != own.split(".")[:2]:
        raise PythonVersionError(
            f"{method}() is asked for Python {wanted}, the caller runs {own}.",
            why="pickled functions and arguments only fit the same version",
            fix=f"Run the caller with Python {wanted}, or ask for {own.rpartition('.')[0]}.",
        )


def unsupported(method: str, **given: object) -> None:
    """Raises `InvalidError` for parameters that are set."""
    for name, value in given.items():
        if value is not None and value != [] and value != {}:
            raise InvalidError(
                f"{method}() cannot use {name} yet.",
                why="It would not do what it says, so it is refused rather than passed over.",
                fix=f"Leave {name} out.",
            )


def flatten(method: str, given: Iterable[str | list[str]]) -> list[str]:
    """Strings and lists of strings as one list. Raises `InvalidError` for anything else."""
    flat: list[str] = []
    for each in given:
        flat.extend(each if isinstance(each, list) else [each])
    for text in flat:
        if not isinstance(text, str) or not text.strip():
            raise InvalidError(f"{method}() cannot use {text!r}.", fix="Give strings, or lists of strings.")
    return flat


def package_names(method: str, given: Iterable[str | list[str]]) -> list[str]:
    """As `flatten`, and none looks like an option."""
    names = flatten(method, given)
    for name in names:
        if name.startswith("-"):
            raise InvalidError(f"{method}() cannot install {name!r}.", fix="Give names; options by keyword.")
    return names


def variables(method: str, given: Mapping[str, str | None] | None) -> tuple[tuple[str, str], ...]:
    """Sorted, without those that are None. Raises `InvalidError` for what cannot be a variable."""
    kept = [(name, value) for name, value in (given or {}).items() if value is not None]
    for name, value in kept:
        if not _is_variable(name, value):
            raise InvalidError(f"{method}() cannot set {name!r} to {value!r}.", fix="Names and values are strings.")
    return tuple(sorted(kept))


def granted(
    method: str, secrets: Iterable[Secret] | None, gpu: str | list[str] | None
) -> tuple[Secret, tuple[str, ...]]:
    """What a step gets besides the image: its secrets as one, and the GPUs it asks for. Raises `InvalidError`."""
    given = (secrets,) if isinstance(secrets, Secret) else tuple(secrets or ())
    if not all(isinstance(secret, Secret) for secret in given):
        raise InvalidError(
            f"{method}() takes a list of secrets.", fix='For example secrets=[potluck.Secret.from_dict({"A": "b"})].'
        )
    return joined(given), checked_gpus(gpu)


def _is_variable(name: object, value: object) -> bool:
    if not isinstance(name, str) or not isinstance(value, str):
        return False
    return bool(name) and "=" not in name and "\0" not in name + value


def words(method: str, given: Sequence[str], *, empty: bool = False) -> tuple[str, ...]:
    """A command as a list. Raises `InvalidError` for a plain string."""
    if isinstance(given, str) or not all(isinstance(word, str) for word in given) or not (given or empty):
        raise InvalidError(f"{method}() takes a list of words, not {given!r}.", fix='For example ["/bin/sh", "-c"].')
    return tuple(given)


def target(method: str, path: str) -> str:
    """A path in the image. Raises `InvalidError` when it is not absolute."""
    if not path.startswith("/") or ".." in path.split("/"):
        raise InvalidError(f"{method}() cannot add to {path!r}.", fix='Give an absolute path in the image, as "/data".')
    return path.rstrip("/") or "/"


def pip_options(
    find_links: str | None, index_url: str | None, extra_index_url: str | None, pre: bool, extra_options: str
) -> tuple[tuple[str, str], ...]:
    """Options for uv: (name without dashes, value)."""
    options = {"find-links": find_links, "index-url": index_url, "extra-index-url": extra_index_url}
    kept = [(name, value) for name, value in options.items() if value]
    kept += [("pre", "")] if pre else []
    return (*kept, *words_as_options("pip_install", extra_options))


def words_as_options(method: str, text: str) -> list[tuple[str, str]]:
    """ "--no-deps --index-strategy x" or "--a=b" as pairs. Raises `InvalidError` for a word that is no option."""
    if not text:
        return []
    import shlex

    pairs: list[tuple[str, str]] = []
    for word in shlex.split(text):
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            pairs.append((name, value))
        elif pairs and not pairs[-1][1] and not word.startswith("-"):
            pairs[-1] = (pairs[-1][0], word)
        else:
            raise InvalidError(
                f"{method}() does not understand {word!r} in extra_options.", fix='Write options as "--name value".'
            )
    return pairs
