"""Which chunks images are made of. Layers are shared by most images of a node, and each is read once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from potluck_images.config import LayerRef
from potluck_images.digest import from_hex
from potluck_images.disk import DiskStore
from potluck_images.errors import CorruptDataError, ImageError, NotFoundError
from potluck_images.image import get_config, get_manifest


@dataclass
class Reach:
    """An image's chunks (config, manifests, data) as far as they can be told, and the bytes of its files."""

    chunks: set[bytes] = field(default_factory=set)
    size: int = 0
    readable: bool = True

    def add(self, other: Reach) -> None:
        self.chunks |= other.chunks
        self.size += other.size
        self.readable &= other.readable


def reach(store: DiskStore, images: Iterable[str]) -> dict[str, Reach]:
    """What each of these images reaches."""
    layers: dict[LayerRef, Reach] = {}
    return {image: _image(store, image, layers) for image in images}


def is_whole(store: DiskStore, image: str) -> bool:
    """Whether all of the image is here, as far as the index knows."""
    found = reach(store, [image])[image]
    return found.readable and not store.missing(found.chunks)


def _image(store: DiskStore, image: str, layers: dict[LayerRef, Reach]) -> Reach:
    found = Reach({from_hex(image)})
    try:
        refs = get_config(store, image).layers
    except (NotFoundError, CorruptDataError, ImageError):
        found.readable = False
        return found
    for ref in refs:
        if ref not in layers:
            layers[ref] = _layer(store, ref)
        found.add(layers[ref])
    return found


def _layer(store: DiskStore, ref: LayerRef) -> Reach:
    try:
        manifest = get_manifest(store, ref)
    except (NotFoundError, CorruptDataError, ImageError):
        return Reach(set(ref.chunks), readable=False)
    return Reach({*ref.chunks, *(chunk.digest for chunk in manifest.chunks)}, manifest.size)
