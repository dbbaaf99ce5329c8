"""An image's config and manifests, to and from a store."""

from __future__ import annotations

from collections.abc import Callable

from potluck_images import chunk, config, manifest
from potluck_images.config import ImageConfig, LayerRef
from potluck_images.digest import digest, from_hex
from potluck_images.errors import ImageError
from potluck_images.manifest import MANIFEST_BYTES_MAX, Manifest
from potluck_images.store import ChunkStore

# All layers of an image together: what a stranger's image may take of our memory before its size is known.
MANIFESTS_BYTES_MAX = 64 << 20

Get = Callable[[bytes], bytes]


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
    return manifest.decode(_join(layer, store.get, MANIFEST_BYTES_MAX))


def get_manifests(image: ImageConfig, get: Get) -> tuple[Manifest, ...]:
    """All layers from the bottom up; `get` gives a chunk's raw bytes. Raises `ImageError` and what `get` raises."""
    left = MANIFESTS_BYTES_MAX
    manifests = []
    for layer in image.layers:
        data = _join(layer, get, left)
        left -= len(data)
        manifests.append(manifest.decode(data))
    return tuple(manifests)


def _join(layer: LayerRef, get: Get, bytes_max: int) -> bytes:
    data = bytearray()
    for piece in layer.chunks:
        data += get(piece)
        if len(data) > bytes_max:
            raise too_large()
    if digest(data).hex() != layer.layer:
        raise ImageError(f"Layer {layer.layer} is refused.", why="Its chunks do not join to its manifest.")
    return bytes(data)


def too_large() -> ImageError:
    return ImageError(
        "The image is refused.",
        why=f"Its manifests are larger than {MANIFESTS_BYTES_MAX >> 20} MiB: far too many files.",
        fix="Leave files out of the image, or pack them into archives.",
    )
