"""The user's own files as a layer."""

from __future__ import annotations

import os
from pathlib import Path

from potluck_images.definition import Source
from potluck_images.errors import ImageBuildError
from potluck_images.local_python import is_byte_code
from potluck_images.tree import Tree


def source_tree(step: Source) -> Tree:
    """Read the files anew. Byte code, hidden entries and virtual environments stay behind.

    Raises `ImageBuildError` for what is missing or cannot be read, `ImageError` for links that leave the image.
    """
    tree = Tree()
    for path, local in step.files:
        if not path.startswith("/"):
            raise ImageBuildError(f"{path!r} is no absolute path in the image.", fix="Begin it with a slash.")
        source = Path(local)
        if source.is_dir():
            tree.put_folder(path.strip("/"), source, _stays_behind)
        else:
            tree.put_file(path[1:], source)
    return tree


def _stays_behind(entry: os.DirEntry[str]) -> bool:
    is_environment = entry.is_dir() and os.path.exists(os.path.join(entry.path, "pyvenv.cfg"))
    return entry.name.startswith(".") or is_environment or is_byte_code(entry)
