"""Values of a build step's secrets: hidden in what the step prints, and looked for in what it leaves."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator, Mapping

from potluck_images.errors import ImageBuildError
from potluck_images.tree import HostFile, Link, Tree

# Shorter values are hidden nowhere: "1" or "yes" would make a log unreadable, and is no secret.
HIDDEN_BYTES_MIN = 4
# Shorter values are not looked for in files: four bytes stand in every large one by chance.
SOUGHT_BYTES_MIN = 8

HIDDEN = b"***"


class Mask:
    """Replaces values by "***". Of a value with several lines, each line counts."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        parts = {part.strip() for value in values for part in (value, *value.splitlines())}
        found = [os.fsencode(part) for part in parts if len(os.fsencode(part)) >= HIDDEN_BYTES_MIN]
        # The longest first: one may be part of another.
        self._values = sorted(found, key=len, reverse=True)

    def __call__(self, data: bytes) -> bytes:
        for value in self._values:
            data = data.replace(value, HIDDEN)
        return data

    def split(self, data: bytes) -> tuple[bytes, bytes]:
        """Masked data in two: what can be shown, and an end in which a value may have begun."""
        data = self(data)
        begun = (size for value in self._values for size in range(1, len(value)) if data.endswith(value[:size]))
        kept = max(begun, default=0)
        return data[: len(data) - kept], data[len(data) - kept :]


NOTHING_HIDDEN = Mask()


def check_result(tree: Tree, secrets: Mapping[str, str]) -> None:
    """Raises `ImageBuildError` when a secret stands in what a step leaves, naming the file."""
    sought = {name: os.fsencode(value) for name, value in secrets.items() if len(value) >= SOUGHT_BYTES_MIN}
    if not sought:
        return
    for path, node in tree.sorted():
        for name, value in sought.items():
            if value in os.fsencode(path) or any(part.find(value) >= 0 for part in _contents(node)):
                raise _left(name, Mask(secrets.values())(os.fsencode(path)).decode(errors="replace"))


def _contents(node: object) -> Iterator[bytes | mmap.mmap]:
    if isinstance(node, Link):
        yield os.fsencode(node.target)
    elif isinstance(node, HostFile) and os.path.getsize(node.source):
        with open(node.source, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


def _left(name: str, path: str) -> ImageBuildError:
    return ImageBuildError(
        f"The step wrote the secret {name} into /{path}.",
        why="whoever gets the image could read it there",
        fix="Have the same command remove the file, or have the program read the secret from its environment.",
    )
