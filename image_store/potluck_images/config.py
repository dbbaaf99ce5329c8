"""Image configs: the layers of an image and how to start Python in it. The BLAKE3 of its bytes is the image id.

A config is small enough to be one chunk, so the image id is also the digest under which the store holds it.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from potluck_images.digest import DIGEST_BYTES, digest, from_hex
from potluck_images.errors import ImageError

FORMAT = 1

# Ten steps are many; each names some 50 chunks of its manifest. Fits into one chunk with room to spare.
LAYERS_MAX = 64
CONFIG_BYTES_MAX = 512 << 10

_Digest = Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]


class LayerRef(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A layer by its id, the digest of its manifest in hex, and the chunks which joined are that manifest."""

    layer: str
    chunks: tuple[_Digest, ...]


class ImageConfig(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`layers` go from the bottom to the top. `python` is the interpreter's path in the image, `python_version` its
    "major.minor.micro", `machine` what it runs on (x86_64, aarch64). `env` is sorted by name. `entrypoint` and `cmd`
    are kept for other runtimes; functions do not start through them."""

    layers: tuple[LayerRef, ...]
    env: tuple[tuple[str, str], ...] = ()
    workdir: str = "/app"
    python: str = ""
    python_version: str = ""
    machine: str = ""
    format: int = FORMAT
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()

    @property
    def image(self) -> str:
        """The image id in hex."""
        return digest(encode(self)).hex()


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ImageConfig)


def encode(config: ImageConfig) -> bytes:
    """Canonical bytes. Raises `ImageError` when the config breaks a rule."""
    _check(config)
    data = _encoder.encode(config)
    if len(data) > CONFIG_BYTES_MAX:
        raise _bad(f"{len(data)} bytes are over the limit of {CONFIG_BYTES_MAX}")
    return data


def decode(data: bytes) -> ImageConfig:
    """Parse canonical bytes. Raises `ImageError` for everything else."""
    if len(data) > CONFIG_BYTES_MAX:
        raise _bad(f"{len(data)} bytes are over the limit of {CONFIG_BYTES_MAX}")
    try:
        config = _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _bad(f"it does not parse: {error}") from None
    if _encoder.encode(config) != data:
        raise _bad("its bytes are not in canonical form")
    _check(config)
    return config


def _bad(why: str) -> ImageError:
    return ImageError("An image's config is refused.", why=why, fix="Build the image again; report it if it stays.")


def _check(config: ImageConfig) -> None:
    if config.format != FORMAT:
        raise _bad(f"format {config.format} is unknown here; upgrade Potluck if it is newer than {FORMAT}")
    if len(config.layers) > LAYERS_MAX:
        raise _bad(f"{len(config.layers)} layers are over the limit of {LAYERS_MAX}")
    for layer in config.layers:
        from_hex(layer.layer)
    names = [name for name, _ in config.env]
    if names != sorted(set(names)) or not all(map(_is_variable, config.env)):
        raise _bad("its environment is not sorted, names a variable twice, or holds an invalid name")
    for path in (config.workdir, config.python):
        if path and not _is_clean(path):
            raise _bad(f"{path[:200]!r} is not a plain absolute path")


def _is_variable(pair: tuple[str, str]) -> bool:
    name, value = pair
    return bool(name) and "=" not in name and "\0" not in name + value


def _is_clean(path: str) -> bool:
    parts = path.removeprefix("/").split("/")
    plain = all(part not in ("", ".", "..") for part in parts) or path == "/"
    return path.startswith("/") and plain and "\0" not in path
