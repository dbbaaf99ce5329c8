"""An image's config and manifests, to and from a store."""

from __future__ import annotations

from collections.abc import Iterable

from potluck_images import chunk, config, manifest
from potluck_images.config import ImageConfig, LayerRef
from potluck_images.digest import digest, from_hex
from potluck_images.errors import ImageError
from potluck_images.manifest import Manifest
from potluck_images.store import ChunkStore


def put_config(store: ChunkStore, image: ImageConfig) -> str:
    """Store the config; returns the image id."""
    return store.add(config.encode(image)).hex()


def get_config(store: ChunkStore, image: str) -> ImageConfig:
    """Raises `NotFoundError`, `CorruptDataError`, `ImageError`."""
    return config.decode(store.get(from_hex(image)))


def put_manifest(store: ChunkStore, layer: Manifest) -> LayerRef:
    """Store the manifest as chunks."""
    data = manifest.encode(layer)
    return LayerRef(digest(data).hex(), tuple(store.add(piece) for piece in chunk.cut(data)))


def get_manifest(store: ChunkStore, layer: LayerRef) -> Manifest:
    """Raises `NotFoundError`, `CorruptDataError`, `ImageError`."""
    return join_manifest(layer, map(store.get, layer.chunks))


def join_manifest(layer: LayerRef, pieces: Iterable[bytes]) -> Manifest:
    """The manifest from the data of its chunks, in order. Raises `ImageError` when they are not this layer's."""
    data = bytearray()
    for piece in pieces:
        data += piece
        if len(data) > manifest.MANIFEST_BYTES_MAX:
            break
    if digest(data).hex() != layer.layer:
        raise ImageError(f"Layer {layer.layer} is refused.", why="Its chunks do not join to its manifest.")
    return manifest.decode(bytes(data))
