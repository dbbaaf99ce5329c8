"""One of our images as an OCI image layout: a folder of blobs that other tools read. Same image, same bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import IO, cast

from potluck_images.config import ImageConfig, LayerRef
from potluck_images.filecache import MTIME_S
from potluck_images.image import Get, get_config, get_manifest
from potluck_images.manifest import Dir, Entry, File, Manifest, Symlink, sort_key
from potluck_images.oci_words import (
    CONFIG,
    LAYER,
    MANIFEST,
    Descriptor,
    Index,
    OciConfig,
    OciManifest,
    Platform,
    RootFs,
    RunConfig,
    architecture,
    to_json,
)
from potluck_images.store import ChunkStore

# zlib: 3 packs about twice as fast as 6 and 3 % larger.
_GZIP_LEVEL = 3
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'

Progress = Callable[[str], None]


class Layout:
    """`blobs` are the config and layers, `manifest` describes them."""

    def __init__(self, folder: Path) -> None:
        self._blobs = folder / "blobs" / "sha256"
        self._blobs.mkdir(parents=True)
        self.blobs: list[Descriptor] = []
        self.manifest = Descriptor(MANIFEST, "", 0)

    def path(self, digest: str) -> Path:
        return self._blobs / digest.removeprefix("sha256:")

    def add(self, kind: str, data: bytes) -> Descriptor:
        blob = Descriptor.of(kind, data)
        self.path(blob.digest).write_bytes(data)
        return blob

    def add_file(self, kind: str, path: Path, digest: str) -> Descriptor:
        blob = Descriptor(kind, f"sha256:{digest}", path.stat().st_size)
        path.rename(self.path(blob.digest))
        return blob


def write_layout(store: ChunkStore, image: str, folder: Path, progress: Progress) -> Layout:
    """Write the image into the empty or missing `folder`. Raises what the store raises, and `OSError`."""
    config = get_config(store, image)
    layout = Layout(folder)
    layers, diff_ids = [], []
    for number, ref in enumerate(config.layers, 1):
        progress(f"writing layer {number} of {len(config.layers)}")
        layer, diff_id = _write_layer(store, ref, layout, folder / "fresh")
        layers.append(layer)
        diff_ids.append(diff_id)
    blob = layout.add(CONFIG, to_json(_config(config, diff_ids)))
    layout.blobs = [*dict.fromkeys(layers), blob]
    layout.manifest = layout.add(MANIFEST, to_json(OciManifest(blob, tuple(layers))))
    entry = Descriptor(
        MANIFEST,
        layout.manifest.digest,
        layout.manifest.size,
        Platform(architecture(config.machine), "linux"),
        {"org.opencontainers.image.ref.name": "latest"},
    )
    (folder / "oci-layout").write_bytes(_LAYOUT)
    (folder / "index.json").write_bytes(to_json(Index((entry,))))
    return layout


def _config(config: ImageConfig, diff_ids: list[str]) -> OciConfig:
    run = RunConfig(
        env=tuple(f"{name}={value}" for name, value in config.env),
        working_dir=config.workdir,
        entrypoint=config.entrypoint or None,
        cmd=config.cmd or ((config.python,) if config.python else None),
    )
    return OciConfig(architecture(config.machine), "linux", RootFs(tuple(diff_ids)), run)


def _write_layer(store: ChunkStore, ref: LayerRef, layout: Layout, fresh: Path) -> tuple[Descriptor, str]:
    """The layer as a gzipped tar; also the digest of the tar itself."""
    layer = get_manifest(store, ref)
    # Files that follow each other often lie in one bundle.
    get = lru_cache(maxsize=2)(store.get)
    with open(fresh, "wb") as out:
        packed = _Hashed(out)
        # No name and time in the header: the same layer has the same bytes.
        with gzip.GzipFile("", "wb", _GZIP_LEVEL, cast(IO[bytes], packed), mtime=0) as zipped:
            plain = _Hashed(zipped)
            with tarfile.open(fileobj=cast(IO[bytes], plain), mode="w|", format=tarfile.PAX_FORMAT) as tar:
                _write_whiteouts(tar, layer)
                for entry in layer.entries:
                    _write_entry(tar, get, layer, entry)
    return layout.add_file(LAYER, fresh, packed.hexdigest()), f"sha256:{plain.hexdigest()}"


class _Hashed:
    """Hashes what is written."""

    def __init__(self, out: IO[bytes] | gzip.GzipFile) -> None:
        self._out, self._hasher = out, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._hasher.update(data)
        return self._out.write(data)

    def flush(self) -> None:
        self._out.flush()

    def hexdigest(self) -> str:
        return self._hasher.hexdigest()


def _write_whiteouts(tar: tarfile.TarFile, layer: Manifest) -> None:
    """What the layer removes; a folder that it removes and has again is an opaque one."""
    folders = {entry.path for entry in layer.entries if isinstance(entry, Dir)}
    for path in sorted(layer.removed, key=sort_key):
        parent, _, name = path.rpartition("/")
        hidden = f"{path}/.wh..wh..opq" if path in folders else f"{parent}/.wh.{name}".removeprefix("/")
        tar.addfile(_info(hidden, tarfile.REGTYPE, 0o644))


def _write_entry(tar: tarfile.TarFile, get: Get, layer: Manifest, entry: Entry) -> None:
    match entry:
        case Dir(path):
            tar.addfile(_info(path, tarfile.DIRTYPE, 0o755))
        case Symlink(path, target):
            info = _info(path, tarfile.SYMTYPE, 0o777)
            info.linkname = target
            tar.addfile(info)
        case File():
            info = _info(entry.path, tarfile.REGTYPE, entry.mode)
            info.size = entry.size
            tar.addfile(info, cast(IO[bytes], io.BufferedReader(_Content(get, layer, entry), 1 << 20)))


def _info(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.mtime = kind, mode, MTIME_S
    return info


class _Content(io.RawIOBase):
    """A file's bytes, read chunk by chunk."""

    def __init__(self, get: Get, layer: Manifest, file: File) -> None:
        self._get, self._layer = get, layer
        self._pieces = iter(file.pieces)
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if not self._left and (piece := next(self._pieces, None)):
            data = self._get(self._layer.chunks[piece.chunk].digest)
            self._left = memoryview(data)[piece.offset : piece.offset + piece.size]
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count
