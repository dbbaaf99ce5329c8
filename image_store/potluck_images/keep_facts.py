"""What is told about images and the store. Small and cheap to import: it crosses the control socket."""

from __future__ import annotations

import msgspec


class ImageFacts(msgspec.Struct, frozen=True, array_like=True):
    """`size` is the raw bytes of all files, `own` what the disk would win back without this image, both in bytes.
    `used_us` is the Unix time of its last use, `held` that a process uses it now, `pins` why it is never removed."""

    image: str
    label: str
    size: int
    own: int
    used_us: int
    held: bool
    damaged: bool = False
    pins: tuple[str, ...] = ()


class LayerFacts(msgspec.Struct, frozen=True, array_like=True):
    """Bytes: `size` of the files, `stored` of their chunks as they lie on disk."""

    layer: str
    files: int
    size: int
    stored: int
    chunks: int


class ImageDetails(msgspec.Struct, frozen=True, array_like=True):
    """An image's config, and its layers from the bottom up."""

    image: str
    label: str
    layers: tuple[LayerFacts, ...]
    env: tuple[tuple[str, str], ...]
    workdir: str
    python: str
    python_version: str
    machine: str


class StoreFacts(msgspec.Struct, frozen=True, array_like=True):
    """Bytes: `packs` on disk, `live` of them in use, `trees` of materialised images, `cap` of packs and trees;
    `free` on the file system, -1 where that is not known."""

    packs: int
    live: int
    trees: int
    cap: int
    chunks: int
    free: int = -1


class Change(msgspec.Struct, frozen=True, array_like=True):
    """`kind` is "+", "-" or "~"; sizes in bytes, 0 where there is no file."""

    kind: str
    path: str
    old_size: int
    new_size: int


class Pruned(msgspec.Struct, frozen=True, array_like=True):
    """Images removed, those left because they are in use, and the bytes won back."""

    removed: tuple[str, ...]
    in_use: tuple[str, ...]
    bytes_won: int
