"""Which local files a step leaves out: patterns as in a .dockerignore file.

https://docs.docker.com/build/concepts/context/#dockerignore-files: `*`, `?` and `[…]` match within one name, `**` any
number of folders; a pattern that matches a folder means all that is in it; `!` takes back; the last match counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from potluck_images.errors import ImageBuildError


class Ignore:
    """Raises `ImageBuildError` for a pattern that cannot be read."""

    def __init__(self, patterns: Iterable[str]) -> None:
        rules = [line.strip() for line in patterns]
        self._rules = [_rule(line) for line in rules if line and not line.startswith("#")]
        self._takes_back = any(keep for keep, _ in self._rules)

    def __call__(self, path: str) -> bool:
        """Whether to leave out `path`, relative to the folder that is added."""
        ignored = False
        for keep, pattern in self._rules:
            if pattern.fullmatch(path):
                ignored = not keep
        return ignored

    def prunes(self, folder: str) -> bool:
        """Whether nothing below `folder` can be wanted."""
        return not self._takes_back and self(folder)


def _rule(line: str) -> tuple[bool, re.Pattern[str]]:
    keep = line.startswith("!")
    return keep, _pattern(line.lstrip("!").strip().removeprefix("./").strip("/"))


@lru_cache(maxsize=256)
def _pattern(glob: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]*\])", glob)
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    text = "".join(known.get(part) or _literal(part) for part in parts)
    try:
        return re.compile(f"{text}(?:/.*)?", re.DOTALL)
    except re.error as error:
        raise ImageBuildError(f"The ignore pattern {glob!r} cannot be read.", why=str(error)) from None


def _literal(part: str) -> str:
    if part.startswith("[") and part.endswith("]") and len(part) > 2:
        return "[" + part[1:-1].replace("\\", "\\\\").replace("[", "\\[") + "]"
    return re.escape(part)
