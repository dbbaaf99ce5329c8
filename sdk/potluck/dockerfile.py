"""Dockerfiles as build steps: the common instructions of one stage; others are refused by name.

https://docs.docker.com/reference/dockerfile/. Owners are not kept (`--chown`), and everything runs as root.
"""

from __future__ import annotations

import glob
import json
import os
import posixpath
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from potluck.errors import InvalidError
from potluck.image_checks import own_version
from potluck.image_files import patterns

Step = tuple[Any, tuple[Any, ...]]

# They describe a container, which functions do not run in.
_PASSED_OVER = ("LABEL", "MAINTAINER", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL", "VOLUME")
_COPY_FLAGS = ("--chown", "--chmod", "--link")
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")

# $NAME, ${NAME}, ${NAME:-else}, ${NAME:+then}; a backslash before it keeps it.
_VARIABLE = re.compile(r"\\\$|\$(?:(\w+)|\{(\w+)(?::([-+])([^}]*))?\})")


def steps_of_file(path: str, context: str, options: dict[str, Any]) -> list[Step]:
    """Raises `InvalidError` for a file that cannot be read and for what is not supported."""
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(f"{path} cannot be read.", why=str(error)) from None
    return _Reader(context or os.path.dirname(os.path.abspath(path)), options).read(text, base=True)


def steps(text: str, context: str, options: dict[str, Any]) -> list[Step]:
    """Lines that go on top of another image. Raises as `steps_of_file`."""
    return _Reader(context or os.getcwd(), options).read(text, base=False)


class _Reader:
    def __init__(self, context: str, options: dict[str, Any]) -> None:
        self._context, self._options = Path(context), options
        self._given: dict[str, str] = options["build_args"]
        self._args: dict[str, str] = {}
        self._env: dict[str, str] = {}
        self._workdir: str | None = None
        self._steps: list[Step] = []
        self._base = False
        self._ignored = self._ignore()

    def read(self, text: str, *, base: bool) -> list[Step]:
        self._base = base
        for line in _lines(text):
            name, _, rest = line.partition(" ")
            self._instruction(name.upper(), rest.strip(), line)
        if self._base:
            raise _refused("it", "It has no FROM.")
        return self._steps

    def _instruction(self, name: str, rest: str, line: str) -> None:
        known: dict[str, Callable[[str], None]] = {
            "FROM": self._from, "RUN": self._run, "ENV": self._set_env, "ARG": self._arg, "WORKDIR": self._set_workdir,
            "COPY": self._copy, "ADD": self._add, "USER": self._user,
            "SHELL": self._set_shell,
            "CMD": lambda rest: self._steps.append(("Cmd", (_command(rest),))),
            "ENTRYPOINT": lambda rest: self._steps.append(("Entrypoint", (_command(rest),))),
        }  # fmt: skip
        if name in _PASSED_OVER:
            return
        if name not in known:
            raise _refused(line, f"{name} is not supported.")
        if self._base and name not in ("FROM", "ARG"):
            raise _refused(line, "It comes before FROM.")
        known[name](rest)

    def _from(self, rest: str) -> None:
        words = self._expand(rest).split()
        if not self._base or not words or words[0].startswith("--") or len(words) not in (1, 3):
            raise _refused(f"FROM {rest}", "Only Dockerfiles with one stage, without flags, are supported.")
        self._base, add_python = False, self._options.get("add_python") is not None
        # Arguments before FROM are for FROM alone.
        self._args = {}
        if words[0] == "scratch":
            self._steps.append(("Scratch", ()))
        else:
            arguments = (words[0], sys.executable, own_version(), add_python, self._options["force"])
            self._steps.append(("Registry", arguments))

    def _run(self, rest: str) -> None:
        if rest.startswith("--") or re.search(r"<<-?[\"']?\w", rest):
            raise _refused(f"RUN {rest}", "Flags and here-documents are not supported.")
        words = _json(rest)
        command = shlex.join(words) if words else rest
        arguments = {name: value for name, value in self._args.items() if name not in self._env}
        variables = tuple(sorted({**arguments, **dict(self._options["env"])}.items()))
        granted = self._options.get("granted", ())
        self._steps.append(("Run", ((command,), variables, self._options["force"], *granted)))

    def _set_env(self, rest: str) -> None:
        first = rest.split(maxsplit=1)
        if "=" in first[0]:
            split = [word.partition("=") for word in shlex.split(self._expand(rest))]
            pairs = [(name, value) for name, _, value in split]
        elif len(first) == 2:
            pairs = [(first[0], self._expand(first[1]))]
        else:
            raise _refused(f"ENV {rest}", "It sets nothing.")
        self._env |= dict(pairs)
        self._steps.append(("Environment", (tuple(pairs),)))

    def _arg(self, rest: str) -> None:
        for word in shlex.split(rest):
            name, has_default, default = word.partition("=")
            if name in self._given:
                self._args[name] = self._given[name]
            elif has_default:
                self._args[name] = self._expand(default)

    def _set_shell(self, rest: str) -> None:
        words = _json(rest)
        if not words:
            raise _refused(f"SHELL {rest}", "It is no list of words.")
        self._steps.append(("Shell", (words,)))

    def _set_workdir(self, rest: str) -> None:
        self._workdir = self._inside(self._expand(rest), f"WORKDIR {rest}")
        self._steps.append(("Workdir", (self._workdir,)))

    def _user(self, rest: str) -> None:
        if rest.split(":")[0] not in ("root", "0"):
            raise _refused(f"USER {rest}", "Steps run as root of a sandbox, functions as a user without rights.")

    def _add(self, rest: str) -> None:
        for word in rest.split():
            if "://" in word or word.startswith("git@") or word.endswith(_ARCHIVES):
                raise _refused(f"ADD {rest}", "It would fetch or unpack something.", "Use RUN with curl or tar.")
        self._copy(rest)

    def _copy(self, rest: str) -> None:
        words = tuple(self._expand(word) for word in _json(rest) or rest.split())
        while words and words[0].startswith("--"):
            if words[0].split("=")[0] not in _COPY_FLAGS:
                raise _refused(f"COPY {rest}", f"{words[0].split('=')[0]} is not supported.")
            words = words[1:]
        if len(words) < 2:
            raise _refused(f"COPY {rest}", "It needs a source and a target.")
        *sources, target = words
        found = [path for source in sources for path in self._find(source)]
        many = len(found) > 1 or target.endswith("/") or target == "."
        inside = self._inside(target, f"COPY {rest}")
        for path in found:
            self._copy_one(path, inside, into=many)

    def _copy_one(self, path: Path, target: str, *, into: bool) -> None:
        if path.is_dir():
            ignored = patterns(str(path), lambda part: self._is_ignored(path / part))
            self._steps.append(("AddFiles", (target, str(path), ignored)))
        else:
            self._steps.append(("AddFiles", (posixpath.join(target, path.name) if into else target, str(path), ())))

    def _find(self, source: str) -> list[Path]:
        if source in self._options.get("context_files", {}):
            return [Path(self._options["context_files"][source])]
        plain = posixpath.normpath(source.lstrip("/") or ".")
        if plain.startswith(".."):
            raise _refused(f"COPY {source}", "It lies outside of the context folder.")
        found = sorted(glob.glob(plain, root_dir=self._context)) if plain != "." else ["."]
        kept = [self._context / name for name in found if name == "." or not self._ignored(name)]
        if not kept:
            raise _refused(f"COPY {source}", f"{self._context} has no such file, or it is ignored.")
        return kept

    def _is_ignored(self, path: Path) -> bool:
        inside = path.is_relative_to(self._context)
        return inside and self._ignored(str(path.relative_to(self._context)))

    def _ignore(self) -> Callable[[str], bool]:
        from potluck_images.ignore import Ignore

        given = self._options["ignore"]
        file = self._context / ".dockerignore"
        if given is None:
            given = file.read_text().splitlines() if file.is_file() else ()
        return Ignore(given)

    def _inside(self, path: str, line: str) -> str:
        if not path.startswith("/") and self._workdir is None:
            raise _refused(line, "A relative path needs a WORKDIR before it.")
        return posixpath.normpath(posixpath.join(self._workdir or "/", path))

    def _expand(self, text: str) -> str:
        def value(match: re.Match[str]) -> str:
            if match[0] == "\\$":
                return "$"
            known = {**self._args, **self._env}.get(match[1] or match[2], "")
            if match[3] == "-":
                return known or match[4]
            return match[4] if match[3] == "+" and known else "" if match[3] == "+" else known

        return _VARIABLE.sub(value, text)


def _lines(text: str) -> list[str]:
    """Instructions, each on one line, without comments."""
    kept = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\[ \t]*\n", " ", "\n".join(kept))
    return [line.strip() for line in joined.splitlines() if line.strip()]


def _command(rest: str) -> tuple[str, ...]:
    return _json(rest) or ("/bin/sh", "-c", rest)


def _json(rest: str) -> tuple[str, ...]:
    """The words of the exec form; nothing for the shell form, which may begin with a bracket too."""
    try:
        words = json.loads(rest) if rest.startswith("[") else []
    except ValueError:
        return ()
    return tuple(words) if isinstance(words, list) and all(isinstance(word, str) for word in words) else ()


def _refused(line: str, why: str, fix: str = "") -> InvalidError:
    return InvalidError(
        f"The Dockerfile cannot be used: {line[:200]}",
        why=why,
        fix=fix or "Describe the step with Image's own methods.",
    )
