"""The user's own files as a layer."""

from __future__ import annotations

import os
from pathlib import Path

from potluck_images.definition import AddFiles, Source
from potluck_images.errors import ImageBuildError
from potluck_images.ignore import Ignore
from potluck_images.local_python import is_byte_code
from potluck_images.tree import Tree


def source_tree(step: Source) -> Tree:
    """Read the files anew. Byte code, hidden entries and virtual environments stay behind.

    Raises `ImageBuildError` for what is missing or cannot be read, `ImageError` for links that leave the image.
    """
    tree = Tree()
    for path, local in step.files:
        source = Path(local)
        if source.is_dir():
            tree.put_folder(_inside(path), source, _stays_behind)
        else:
            tree.put_file(_inside(path), source)
    return tree


def added_tree(step: AddFiles) -> Tree:
    """Read the files anew; all but what the step ignores. Raises as `source_tree`."""
    tree, source, ignore = Tree(), Path(step.local), Ignore(step.ignore)
    if not source.is_dir():
        tree.put_file(_inside(step.path), source)
        return tree

    def skip(entry: os.DirEntry[str]) -> bool:
        path = os.path.relpath(entry.path, source)
        return ignore.prunes(path) if entry.is_dir(follow_symlinks=False) else ignore(path)

    tree.put_folder(_inside(step.path), source, skip)
    return tree


def _inside(path: str) -> str:
    if not path.startswith("/"):
        raise ImageBuildError(f"{path!r} is no absolute path in the image.", fix="Begin it with a slash.")
    return path.strip("/")


def _stays_behind(entry: os.DirEntry[str]) -> bool:
    is_environment = entry.is_dir() and os.path.exists(os.path.join(entry.path, "pyvenv.cfg"))
    return entry.name.startswith(".") or is_environment or is_byte_code(entry)
