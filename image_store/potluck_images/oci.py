"""Images from OCI registries, and ours as OCI images: `pull`, `push`, `export`.

All layers of an OCI image become one of ours: links may lead from one layer into another, so only the whole is a tree
that can be checked. Chunks that images share are stored once all the same.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from potluck_images.config import ImageConfig, LayerRef
from potluck_images.errors import ImageBuildError
from potluck_images.image import put_config
from potluck_images.oci_layers import Layers
from potluck_images.oci_layout import write_layout
from potluck_images.oci_tar import Budget, Entry, Spool, read_layer
from potluck_images.oci_words import (
    INDEXES,
    MANIFESTS,
    OCI_LAYERS_MAX,
    Descriptor,
    Index,
    OciConfig,
    OciManifest,
    Reference,
    RunConfig,
    bad,
    choose,
    machine,
    own_architecture,
    parse,
    parse_reference,
)
from potluck_images.pack import pack
from potluck_images.packfile import clearer
from potluck_images.store import ChunkStore

if TYPE_CHECKING:
    from potluck_images.oci_registry import Registry

# Called with what happens, often; what it raises ends the work.
Progress = Callable[[str], None]

# Unpacking says how far it is, and can be cancelled, after so many entries: some tenths of a second.
ENTRIES_HEARD = 500
# Variables of an image, together; the kernel takes 128 KiB for one.
ENV_BYTES_MAX = 256 << 10


@dataclass(frozen=True)
class OciImage:
    """A pulled image: `layers` are in the store; the rest is what its config says. `machine` as in `ImageConfig`."""

    layers: tuple[LayerRef, ...]
    env: dict[str, str]
    workdir: str
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    machine: str
    # "sha256:…" of the manifest: what the tag meant at this moment.
    digest: str


def pull(reference: str, store: ChunkStore, work: Path, progress: Progress) -> OciImage:
    """Fetch the image for this machine into the store. Blocking; uses folders of its own in `work`.

    Raises `ImageError` for whatever the registry or the image does wrong, and `StoreFullError`.
    """
    parsed = parse_reference(reference)
    with closing(_registry(parsed)) as registry, _folder(work) as folder:
        progress(f"asking {parsed.registry} for {parsed}")
        digest, manifest = _manifest(registry, parsed.target)
        config = parse(registry.document(manifest.config), OciConfig, "its config")
        _check(manifest, config)
        layers = Layers()
        spool, budget = Spool(folder), Budget()
        for number, (layer, diff_id) in enumerate(zip(manifest.layers, config.rootfs.diff_ids, strict=True), 1):
            heading = f"layer {number} of {len(manifest.layers)}"
            blob = folder / "blob"
            registry.blob(layer, blob, lambda text, heading=heading: progress(f"{heading}: {text}"))  # type: ignore[misc]
            layers.add(_heard(read_layer(blob, spool, budget, diff_id), f"{heading}: unpacking", progress))
        ref = pack(layers.tree(), store, lambda done: progress(f"packed {done >> 20} MiB"))
    return _image(ref, config, digest)


def pull_image(reference: str, store: ChunkStore, work: Path, progress: Progress) -> str:
    """Pull, and make an image of it; returns the image id. Raises as `pull`."""
    found = pull(reference, store, work, progress)
    config = ImageConfig(
        layers=found.layers,
        env=tuple(sorted(found.env.items())),
        workdir=found.workdir,
        machine=found.machine,
        entrypoint=found.entrypoint,
        cmd=found.cmd,
    )
    return put_config(store, config)


def push(image: str, reference: str, store: ChunkStore, work: Path, progress: Progress) -> str:
    """Upload the image; returns the digest of its manifest, "sha256:…". Raises as `pull`, and `NotFoundError`."""
    parsed = parse_reference(reference)
    if parsed.by_digest:
        raise ImageBuildError("A push needs a tag, not a digest.", fix="Write it like localhost:5000/name:tag.")
    with closing(_registry(parsed)) as registry, _folder(work) as folder:
        layout = write_layout(store, image, folder, progress)
        for number, blob in enumerate(layout.blobs, 1):
            progress(f"uploading {number} of {len(layout.blobs)}: {blob.size >> 20} MiB")
            registry.put_blob(blob.digest, layout.path(blob.digest))
        registry.put_manifest(layout.path(layout.manifest.digest).read_bytes())
    return layout.manifest.digest


def export(image: str, file: Path, store: ChunkStore, work: Path, progress: Progress) -> None:
    """Write an OCI archive (image-layout in a tar), the same bytes for the same image. Raises as `push`.

    `file` is replaced at the end, when all is written.
    """
    with _folder(work) as folder:
        write_layout(store, image, folder / "layout", progress)
        progress("writing the archive")
        fresh = file.with_name(f".{file.name}.part")
        try:
            with tarfile.open(fresh, "w", format=tarfile.PAX_FORMAT) as tar:
                tar.add(folder / "layout", ".", filter=_plain)
            fresh.replace(file)
        finally:
            fresh.unlink(missing_ok=True)


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    info.mode = 0o755 if info.isdir() else 0o644
    return info


def _registry(reference: Reference) -> Registry:
    # httpx takes a sixth of a node's start, and most nodes never ask a registry.
    from potluck_images.oci_registry import Registry

    return Registry(reference)


def _manifest(registry: Registry, target: str) -> tuple[str, OciManifest]:
    """The digest and the manifest for this machine."""
    kind, data = registry.manifest(target)
    if kind in INDEXES:
        entry = choose(parse(data, Index, "its index"))
        kind, data = registry.manifest(entry.digest, entry.size)
    if kind not in MANIFESTS:
        raise bad(f"its manifest has the type {kind[:100]!r}, which is not understood")
    return Descriptor.of(kind, data).digest, parse(data, OciManifest, "its manifest")


def _check(manifest: OciManifest, config: OciConfig) -> None:
    if len(manifest.layers) > OCI_LAYERS_MAX:
        raise bad(f"{len(manifest.layers)} layers are over the limit of {OCI_LAYERS_MAX}")
    if len(manifest.layers) != len(config.rootfs.diff_ids):
        raise bad("its config and its manifest have different numbers of layers")
    if config.os != "linux" or config.architecture != own_architecture():
        raise bad(f"it is made for {config.os}/{config.architecture}, and this is linux/{own_architecture()}")


def _image(ref: LayerRef, config: OciConfig, digest: str) -> OciImage:
    run = config.config or RunConfig()
    pairs = [text.partition("=") for text in run.env or ()]
    env = {name: value for name, equals, value in pairs if name and equals and "\0" not in name + value}
    if sum(map(len, run.env or ())) > ENV_BYTES_MAX:
        raise bad(f"its environment is over the limit of {ENV_BYTES_MAX} bytes")
    return OciImage(
        layers=(ref,),
        env=env,
        workdir=_workdir(run.working_dir),
        entrypoint=run.entrypoint or (),
        cmd=run.cmd or (),
        machine=machine(config.architecture),
        digest=digest,
    )


def _workdir(text: str) -> str:
    """A plain absolute path; the root when none is given."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in text:
        raise bad(f"its working directory {text[:200]!r} is not plain")
    return "/" + "/".join(parts)


def _heard(entries: Iterator[Entry], heading: str, progress: Progress) -> Iterator[Entry]:
    for number, entry in enumerate(entries):
        if number % ENTRIES_HEARD == 0:
            progress(f"{heading}, {number} files")
        yield entry


@contextmanager
def _folder(work: Path) -> Iterator[Path]:
    try:
        work.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="oci-", dir=work))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise clearer(error) from None
