"""The user's own files as a layer."""

from __future__ import annotations

import os
from pathlib import Path

from potluck_images.definition import AddFiles, Source
from potluck_images.errors import ImageBuildError
from potluck_images.ignore import Ignore
from potluck_images.local_python import is_byte_code
from potluck_images.tree import Folder, Link, Tree


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
    tree, source, path = Tree(), Path(step.local), _inside(step.path)
    if not source.is_dir():
        tree.put_file(path, source)
        return tree
    if path:
        tree.put(path, Folder())
    ignore = Ignore(step.ignore)
    try:
        _add(tree, path, source, "", ignore)
    except OSError as error:
        raise ImageBuildError(f"{source} cannot be read for the image.", why=str(error)) from None
    except UnicodeEncodeError as error:
        raise ImageBuildError(f"{source} holds a name that is not UTF-8: {error.object!r}.", fix="Rename it.") from None
    return tree


def _add(tree: Tree, path: str, folder: Path, inside: str, ignore: Ignore) -> None:
    """`inside` is the path below the folder that is added. An ignored folder may hold what is taken back."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        name, target = f"{inside}/{entry.name}".strip("/"), f"{path}/{entry.name}".strip("/")
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder and not ignore.prunes(name):
            if not ignore(name):
                tree.put(target, Folder())
            _add(tree, path=target, folder=Path(entry.path), inside=name, ignore=ignore)
        elif not is_folder and not ignore(name):
            if entry.is_symlink():
                tree.put(target, Link(os.readlink(entry.path)))
            else:
                tree.put_file(target, Path(entry.path))


def _inside(path: str) -> str:
    if not path.startswith("/"):
        raise ImageBuildError(f"{path!r} is no absolute path in the image.", fix="Begin it with a slash.")
    return path.strip("/")


def _stays_behind(entry: os.DirEntry[str]) -> bool:
    is_environment = entry.is_dir() and os.path.exists(os.path.join(entry.path, "pyvenv.cfg"))
    return entry.name.startswith(".") or is_environment or is_byte_code(entry)
