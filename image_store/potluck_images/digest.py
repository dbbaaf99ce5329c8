"""Digests: BLAKE3, 32 bytes. In file names and configs they are written as 64 hex digits."""

from __future__ import annotations

from blake3 import blake3

from potluck_images.errors import ImageError

DIGEST_BYTES = 32


def digest(data: bytes | bytearray | memoryview) -> bytes:
    """BLAKE3 of `data`. Releases the GIL for large inputs."""
    return blake3(data).digest()


def from_hex(text: str) -> bytes:
    """The digest written as 64 lower-case hex digits. Raises `ImageError` for anything else."""
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != DIGEST_BYTES or raw.hex() != text:
        raise ImageError(f"{text[:80]!r} is not an image or layer id.", why="An id is 64 hex digits.")
    return raw
