"""Layers merged into one tree: a file replaces what is below it, folders merge, what a layer removes is gone."""

from __future__ import annotations

from collections.abc import Iterable

from potluck_images.errors import ImageError
from potluck_images.manifest import Dir, File, Manifest, Symlink

# Mount points and what every program expects. They win over all layers, so that none can be a link or a file.
STANDARD_FOLDERS = ("proc", "dev", "tmp", "run", "sys", "etc", "opt", "app")

# As Linux follows them.
LINKS_MAX = 40


class Leaf:
    """A file or link and the layer whose chunks it refers to."""

    __slots__ = ("entry", "layer")

    def __init__(self, entry: File | Symlink, layer: Manifest) -> None:
        self.entry, self.layer = entry, layer


# A folder by name; what lies below a name is a folder again or a leaf.
MergedTree = dict[str, "MergedTree | Leaf"]


def merge(layers: Iterable[Manifest]) -> MergedTree:
    """Layers from the bottom to the top, and the standard folders."""
    root: MergedTree = {}
    for layer in layers:
        for path in layer.removed:
            _remove(root, path)
        for entry in layer.entries:
            _put(root, entry, layer)
    for name in STANDARD_FOLDERS:
        if not isinstance(root.get(name), dict):
            root[name] = {}
    return root


def _remove(root: MergedTree, path: str) -> None:
    *parents, name = path.split("/")
    folder = root
    for parent in parents:
        below = folder.get(parent)
        if not isinstance(below, dict):
            return
        folder = below
    folder.pop(name, None)


def _put(root: MergedTree, entry: Dir | File | Symlink, layer: Manifest) -> None:
    *parents, name = entry.path.split("/")
    folder = root
    for parent in parents:
        below = folder[parent]
        # A manifest names each parent before what lies in it, and that has made it a folder.
        assert isinstance(below, dict)
        folder = below
    if not isinstance(entry, Dir):
        folder[name] = Leaf(entry, layer)
    elif not isinstance(folder.get(name), dict):
        folder[name] = {}


def real_path(root: MergedTree, path: str) -> str:
    """Where `path` leads once links among its parents are followed, as a program inside would follow them.

    A part that does not exist is kept as it is. Raises `ImageError` for links that go in circles.
    """
    todo, done = [*reversed(path.split("/"))], list[str]()
    for _ in range(LINKS_MAX):
        while todo:
            name = todo.pop()
            below = find(root, [*done, name])
            if todo and isinstance(below, Leaf) and isinstance(below.entry, Symlink):
                target = below.entry.target
                done = [] if target.startswith("/") else done
                todo += [part for part in reversed(target.split("/")) if part]
                break
            done = done[:-1] if name == ".." else [*done, name]
        else:
            return "/".join(done)
    raise ImageError(f"/{path} leads through links that go in circles.", fix="Give another path in the image.")


def find(root: MergedTree, parts: list[str]) -> MergedTree | Leaf | None:
    """What is at a path, without following links."""
    below: MergedTree | Leaf | None = root
    for part in parts:
        below = below.get(part) if isinstance(below, dict) else None
    return below
