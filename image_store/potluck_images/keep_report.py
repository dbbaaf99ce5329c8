"""What a user is told about the images on this node, from the shelf and the store."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from potluck_images.image import get_config, get_manifest
from potluck_images.keep import PRIVATE, Shelf
from potluck_images.keep_facts import Change, ImageDetails, ImageFacts, LayerFacts, StoreFacts
from potluck_images.keep_reach import reach
from potluck_images.manifest import File
from potluck_images.merge import MergedTree, merge

_Leaves = dict[str, tuple[object, int]]


def images(shelf: Shelf) -> tuple[ImageFacts, ...]:
    """All images, the last used first."""
    sizes, notes = shelf.store.sizes(), [note for note in shelf.notes() if note.label != PRIVATE]
    reached = reach(shelf.store, [note.image for note in notes])
    users = Counter(digest for found in reached.values() for digest in found.chunks)
    pins: dict[str, list[str]] = {}
    for image, reason in sorted(shelf.pins()):
        pins.setdefault(image, []).append(reason)
    facts = []
    for note in notes:
        found = reached[note.image]
        own = sum(sizes.get(digest, 0) for digest in found.chunks if users[digest] == 1)
        whole = found.readable and found.chunks <= sizes.keys()
        held = shelf.is_held(note.image)
        why = tuple(pins.get(note.image, ()))
        facts.append(ImageFacts(note.image, note.label, found.size, own, note.used_us, held, not whole, why))
    return tuple(facts)


def details(shelf: Shelf, image: str) -> ImageDetails:
    """Raises `NotFoundError`, `CorruptDataError`, `ImageError`."""
    config = get_config(shelf.store, image)
    sizes = shelf.store.sizes()
    layers = []
    for ref in config.layers:
        layer = get_manifest(shelf.store, ref)
        files = sum(isinstance(entry, File) for entry in layer.entries)
        stored = sum(sizes.get(digest, 0) for digest in {*ref.chunks, *(chunk.digest for chunk in layer.chunks)})
        layers.append(LayerFacts(ref.layer, files, layer.size, stored, len(layer.chunks)))
    label = next((note.label for note in shelf.notes() if note.image == image), "")
    return ImageDetails(
        image, label, tuple(layers), config.env, config.workdir, config.python, config.python_version, config.machine
    )


def store_facts(shelf: Shelf, trees: Path, cap: int) -> StoreFacts:
    sizes = shelf.store.sizes()
    free = shutil.disk_usage(trees).free if trees.exists() else -1
    return StoreFacts(shelf.store.disk_bytes(), sum(sizes.values()), tree_bytes(trees), cap, len(sizes), free)


def tree_bytes(trees: Path) -> int:
    """Bytes of the files that materialised images link to; each counts once."""
    total = 0
    for folder in trees.glob("*/files/??"):
        with os.scandir(folder) as entries:
            total += sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
    return total


def diff(shelf: Shelf, old: str, new: str) -> tuple[Change, ...]:
    """What differs between the merged trees of two images, by path. Raises as `details`."""
    before, after = _leaves(shelf, old), _leaves(shelf, new)
    changes = []
    for path in sorted(before.keys() | after.keys()):
        was, now = before.get(path), after.get(path)
        if was != now:
            kind = "+" if was is None else "-" if now is None else "~"
            changes.append(Change(kind, path, was[1] if was else 0, now[1] if now else 0))
    return tuple(changes)


def _leaves(shelf: Shelf, image: str) -> _Leaves:
    config = get_config(shelf.store, image)
    return dict(_walk(merge(get_manifest(shelf.store, layer) for layer in config.layers), ""))


def _walk(tree: MergedTree, prefix: str) -> Iterator[tuple[str, tuple[object, int]]]:
    """Path, then what makes an entry the same (content and mode, or target), and its size."""
    for name, below in tree.items():
        path = f"{prefix}/{name}"
        if isinstance(below, dict):
            yield from _walk(below, path)
        elif isinstance(below.entry, File):
            yield path, ((below.entry.digest, below.entry.mode), below.entry.size)
        else:
            yield path, (below.entry.target, 0)
