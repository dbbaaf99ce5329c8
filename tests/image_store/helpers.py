"""Small trees and images for these tests."""

from __future__ import annotations

import os
from pathlib import Path

from potluck_images.config import ImageConfig
from potluck_images.image import put_config
from potluck_images.pack import pack
from potluck_images.store import ChunkStore
from potluck_images.tree import Link, Text, Tree


def tree_of(files: dict[str, bytes | str]) -> Tree:
    """Text as bytes; a string is a link's target."""
    tree = Tree()
    for path, content in files.items():
        tree.put(path, Link(content) if isinstance(content, str) else Text(content))
    return tree


def image_of(store: ChunkStore, *layers: dict[str, bytes | str] | Tree) -> str:
    packed = [pack(layer if isinstance(layer, Tree) else tree_of(layer), store) for layer in layers]
    return put_config(store, ImageConfig(tuple(packed)))


def listing(root: Path) -> dict[str, bytes | str]:
    """What `tree_of` would make of a folder; folders end in a slash."""
    found: dict[str, bytes | str] = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = Path(folder, name)
            key = str(path.relative_to(root))
            if path.is_symlink():
                found[key] = os.readlink(path)
            elif path.is_dir():
                found[f"{key}/"] = b""
            else:
                found[key] = path.read_bytes()
    return found
