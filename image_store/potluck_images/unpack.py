"""Unpacking: one layer as ordinary, writable files, for a build step to go on from."""

from __future__ import annotations

import os
from pathlib import Path

from potluck_images.config import LayerRef
from potluck_images.image import get_manifest
from potluck_images.manifest import Dir, File, Manifest, Symlink
from potluck_images.store import ChunkStore


def unpack(store: ChunkStore, layer: LayerRef, folder: Path) -> None:
    """Write the layer into `folder`, which must be new and empty.

    In one layer every parent is a real folder, so no link can lead a write outside. Raises what the store raises.
    """
    manifest = get_manifest(store, layer)
    for entry in manifest.entries:
        path = folder / entry.path
        match entry:
            case Dir():
                path.mkdir()
            case Symlink():
                path.symlink_to(entry.target)
            case File():
                _write(store, manifest, entry, path)


def _write(store: ChunkStore, manifest: Manifest, file: File, path: Path) -> None:
    with open(path, "xb") as out:
        for piece in file.pieces:
            data = store.get(manifest.chunks[piece.chunk].digest)
            out.write(data[piece.offset : piece.offset + piece.size])
        os.fchmod(out.fileno(), file.mode)
