"""The words of OCI: references to images, and the JSON documents that describe them.

Sources: OCI image spec 1.1 (image-layout, manifest, image-index, config), and Docker's older names for the same.
"""

from __future__ import annotations

import hashlib
import ipaddress
import platform
import re
from typing import Any, TypeVar

import msgspec

from potluck_images.errors import ImageError

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
INDEXES = (INDEX, "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = (MANIFEST, "application/vnd.docker.distribution.manifest.v2+json")

# The distribution spec has registries take manifests of 4 MiB; a config repeats the history of its image.
DOCUMENT_BYTES_MAX = 4 << 20
# Docker itself stops at 127.
OCI_LAYERS_MAX = 256

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_MACHINES = {name: machine for machine, name in _ARCHITECTURES.items()}

# The distribution spec's grammar, with the lengths that registries keep to.
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HOST = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9a-fA-F:]{2,45}\])(?::[0-9]{1,5})?")


class Reference(msgspec.Struct, frozen=True):
    """`target` is a tag, or a digest when the reference has one."""

    registry: str
    repository: str
    target: str

    @property
    def by_digest(self) -> bool:
        return self.target.startswith("sha256:")

    @property
    def base(self) -> str:
        """The registry's URL. Plain HTTP for registries on this machine only."""
        host = "registry-1.docker.io" if self.registry == "docker.io" else self.registry
        return f"{'http' if is_loopback(host) else 'https'}://{host}"

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}{'@' if self.by_digest else ':'}{self.target}"


def parse_reference(text: str) -> Reference:
    """`[registry/]repository[:tag][@sha256:…]`, as Docker reads it. Raises `ImageError`."""
    name, _, digest = text.strip().partition("@")
    head, slash, rest = name.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost"):
        registry, path = head, rest
    else:
        registry, path = "docker.io", name
    repository, _, tag = path.partition(":")
    if registry in ("docker.io", "index.docker.io"):
        registry = "docker.io"
        repository = repository if "/" in repository else f"library/{repository}"
    target = digest or tag or "latest"
    fits = _HOST.fullmatch(registry) and _REPOSITORY.fullmatch(repository) and len(repository) <= 255
    if not fits or not (_DIGEST if digest else _TAG).fullmatch(target):
        raise ImageError(
            f"{text[:200]!r} is no reference to an image.",
            fix="Write it like python:3.12-slim, ghcr.io/owner/name:tag or localhost:5000/name@sha256:…",
        )
    return Reference(registry, repository, target)


def is_loopback(host: str) -> bool:
    """Whether `host`, with or without a port, is this machine."""
    name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


class Platform(msgspec.Struct, frozen=True):
    architecture: str = ""
    os: str = ""


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """`size` in bytes."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: dict[str, str] | None = None

    @classmethod
    def of(cls, kind: str, data: bytes) -> Descriptor:
        return cls(kind, f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))


class Index(msgspec.Struct, frozen=True, rename="camel"):
    manifests: tuple[Descriptor, ...]
    media_type: str = INDEX
    schema_version: int = 2


class OciManifest(msgspec.Struct, frozen=True, rename="camel"):
    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = MANIFEST
    schema_version: int = 2


class RunConfig(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    env: tuple[str, ...] | None = None
    working_dir: str = ""
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None


class RootFs(msgspec.Struct, frozen=True):
    diff_ids: tuple[str, ...]
    type: str = "layers"


class OciConfig(msgspec.Struct, frozen=True):
    architecture: str
    os: str
    rootfs: RootFs
    config: RunConfig | None = None


T = TypeVar("T")


def parse(data: bytes, kind: type[T], what: str) -> T:
    """A document from a registry. Raises `ImageError`; `what` names it."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise bad(f"{what} does not parse: {error}") from None


def check_digest(digest: str) -> str:
    """The hex digits of a SHA-256 digest. Raises `ImageError` for any other text."""
    if not _DIGEST.fullmatch(digest):
        raise bad(f"{digest[:100]!r} is no sha256 digest, the only kind that is understood")
    return digest.removeprefix("sha256:")


def own_architecture() -> str:
    """This machine in OCI's words."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def machine(architecture: str) -> str:
    """An architecture in the kernel's words, as image configs have it."""
    return _MACHINES.get(architecture, architecture)


def architecture(machine: str) -> str:
    """The other way round; this machine's when it is not known."""
    return _ARCHITECTURES.get(machine, machine) or own_architecture()


def choose(index: Index) -> Descriptor:
    """The manifest for this machine. Raises `ImageError` when there is none."""
    wanted = own_architecture()
    for entry in index.manifests:
        here = entry.platform
        if here and here.os == "linux" and here.architecture == wanted and entry.media_type in MANIFESTS:
            return entry
    offered = sorted({f"{e.platform.os}/{e.platform.architecture}" for e in index.manifests if e.platform})
    raise ImageError(f"The image is not made for linux/{wanted}.", why=f"It is there for: {', '.join(offered)[:500]}.")


def bad(why: str) -> ImageError:
    return ImageError("The OCI image is refused.", why=why, fix="Ask whoever published it, or use another tag.")


def to_json(document: Any) -> bytes:
    return msgspec.json.encode(document)
