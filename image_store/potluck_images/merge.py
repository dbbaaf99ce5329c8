"""Layers merged into one tree: a file replaces what is below it, folders merge, what a layer removes is gone."""

from __future__ import annotations

from collections.abc import Iterable

from potluck_images.manifest import Dir, File, Manifest, Symlink

# Mount points and what every program expects. They win over all layers, so that none can be a link or a file.
STANDARD_FOLDERS = ("proc", "dev", "tmp", "run", "sys", "etc", "opt", "app")


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
