"""Manifests: one layer's tree as canonical bytes. The same tree has the same bytes, and so the same layer id, anywhere.

A manifest comes from strangers. `decode` accepts exactly the bytes that `encode` makes and nothing that could leave the
root when it is written out; everything else is an `ImageError`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from potluck_images.chunk import CHUNK_BYTES_MAX
from potluck_images.digest import DIGEST_BYTES
from potluck_images.errors import ImageError

FORMAT = 1

# torch with CUDA has 20,000 files and 5 GB; a conda tree some 200,000. Ten times that is a mistake or an attack.
ENTRIES_MAX = 1_000_000
LAYER_BYTES_MAX = 256 << 30
# 30,000 files and 15,000 chunks take about 5 MB; as Python objects ten times that.
MANIFEST_BYTES_MAX = 32 << 20
# Linux: NAME_MAX, and PATH_MAX less the room for the root's own path.
NAME_BYTES_MAX = 255
PATH_BYTES_MAX = 3000
# The tree is written recursively; no real package nests deeper.
DEPTH_MAX = 100

FILE_MODES = (0o644, 0o755)

_Size = Annotated[int, msgspec.Meta(ge=0, le=LAYER_BYTES_MAX)]
_Digest = Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]


class _Part(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    pass


class ChunkRef(_Part, frozen=True):
    """A chunk of this layer and its raw size in bytes."""

    digest: _Digest
    size: Annotated[int, msgspec.Meta(ge=1, le=CHUNK_BYTES_MAX)]


class Piece(_Part, frozen=True):
    """`size` bytes at `offset` of the chunk with this index in `Manifest.chunks`."""

    chunk: _Size
    offset: _Size
    size: Annotated[int, msgspec.Meta(ge=1, le=CHUNK_BYTES_MAX)]


class Dir(_Part, frozen=True, tag="d"):
    """A directory, always 0755. Each entry's parent is an entry of its own."""

    path: str


class File(_Part, frozen=True, tag="f"):
    """A regular file; `mode` is 0644 or 0755, `digest` the BLAKE3 of its content."""

    path: str
    mode: int
    size: _Size
    digest: _Digest
    pieces: tuple[Piece, ...]


class Symlink(_Part, frozen=True, tag="l"):
    """`target` is relative to the link, or absolute from the image's root; `..` only at its start, inside the tree."""

    path: str
    target: str


Entry = Dir | File | Symlink


class Manifest(_Part, frozen=True):
    """One layer. Paths are relative to the image's root, sorted by their components.

    What layers below have at a path in `removed` is gone; then `entries` are added. A folder that is named in both is
    one that shows nothing of what lies below it.
    """

    format: int
    chunks: tuple[ChunkRef, ...]
    entries: tuple[Entry, ...]
    removed: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries if isinstance(entry, File))


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Manifest)


def sort_key(path: str) -> list[str]:
    """The order of entries: a folder, then all that is in it."""
    return path.split("/")


def encode(manifest: Manifest) -> bytes:
    """Canonical bytes. Raises `ImageError` when the manifest breaks a rule."""
    _check(manifest)
    data = _encoder.encode(manifest)
    _check_length(len(data))
    return data


def decode(data: bytes) -> Manifest:
    """Parse canonical bytes. Raises `ImageError` for everything else."""
    _check_length(len(data))
    try:
        manifest = _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _bad(f"it does not parse: {error}") from None
    if _encoder.encode(manifest) != data:
        raise _bad("its bytes are not in canonical form")
    _check(manifest)
    return manifest


def _bad(why: str) -> ImageError:
    return ImageError("A layer's manifest is refused.", why=why, fix="Build the image again; report it if it stays.")


def _check_length(size: int) -> None:
    if size > MANIFEST_BYTES_MAX:
        raise _bad(f"{size} bytes are over the limit of {MANIFEST_BYTES_MAX}")


def _check(manifest: Manifest) -> None:
    if manifest.format != FORMAT:
        raise _bad(f"format {manifest.format} is unknown here; upgrade Potluck if it is newer than {FORMAT}")
    if len(manifest.entries) > ENTRIES_MAX:
        raise _bad(f"{len(manifest.entries)} entries are over the limit of {ENTRIES_MAX}")
    if len(manifest.removed) > ENTRIES_MAX:
        raise _bad(f"{len(manifest.removed)} removed paths are over the limit of {ENTRIES_MAX}")
    _check_tree(manifest.entries)
    _check_removed(manifest)
    _check_chunks(manifest)
    if manifest.size > LAYER_BYTES_MAX:
        raise _bad(f"{manifest.size} bytes of files are over the limit of {LAYER_BYTES_MAX}")


def _check_tree(entries: tuple[Entry, ...]) -> None:
    folders = {""}
    before: list[str] = [""]
    for entry in entries:
        parts = sort_key(entry.path)
        check_path(entry.path, parts)
        if parts <= before:
            raise _bad(f"{entry.path!r} is out of order or named twice")
        if entry.path.rpartition("/")[0] not in folders:
            raise _bad(f"{entry.path!r} does not lie in a folder of this layer")
        if isinstance(entry, Dir):
            folders.add(entry.path)
        elif isinstance(entry, Symlink):
            check_target(entry.path, entry.target)
        before = parts


def _check_removed(manifest: Manifest) -> None:
    """Sorted, each once, none below another, and none that an entry replaces anyway."""
    replaced = {entry.path for entry in manifest.entries if not isinstance(entry, Dir)}
    before: list[str] = [""]
    for path in manifest.removed:
        parts = sort_key(path)
        check_path(path, parts)
        if parts <= before or parts[: len(before)] == before:
            raise _bad(f"the removed {path!r} is out of order, named twice, or below another one")
        if path in replaced or any("/".join(parts[:depth]) in replaced for depth in range(1, len(parts))):
            raise _bad(f"{path!r} is both removed and replaced")
        before = parts


def check_path(path: str, parts: list[str]) -> None:
    """Raises `ImageError` for a path that is absolute, climbs, or holds what no file name may hold."""
    if any(part in ("", ".", "..") or len(part.encode()) > NAME_BYTES_MAX for part in parts) or "\0" in path:
        raise _bad(f"{path[:200]!r} is not a plain relative path")
    if len(parts) > DEPTH_MAX or len(path.encode()) > PATH_BYTES_MAX:
        raise _bad(f"{path[:200]!r}… is too deep or too long")


def check_target(path: str, target: str) -> None:
    """Raises `ImageError` for a symlink that leaves the tree.

    `..` is allowed at the start only: there it climbs through real folders of this layer, so that no other link can
    bend the way out of the root.
    """
    parts = target.removeprefix("/").split("/") if target else []
    climbs = 0
    while not target.startswith("/") and climbs < len(parts) and parts[climbs] == "..":
        climbs += 1
    inside = climbs <= path.count("/") and ".." not in parts[climbs:]
    if not parts or not inside or "\0" in target or len(target.encode()) > PATH_BYTES_MAX:
        raise _bad(f"the symbolic link {path!r} → {target[:200]!r} leaves the tree")


def _check_chunks(manifest: Manifest) -> None:
    """Chunks are listed in the order of their first use, each once, none unused."""
    used = 0
    for entry in manifest.entries:
        if isinstance(entry, File):
            _check_file(entry, manifest.chunks)
            for piece in entry.pieces:
                if piece.chunk > used:
                    raise _bad("its chunks are not listed in the order of their use")
                used = max(used, piece.chunk + 1)
    if used != len(manifest.chunks) or len({chunk.digest for chunk in manifest.chunks}) != used:
        raise _bad("it lists a chunk twice or one that no file uses")


def _check_file(file: File, chunks: tuple[ChunkRef, ...]) -> None:
    if file.mode not in FILE_MODES:
        raise _bad(f"{file.path!r} has mode {file.mode:o}; only 644 and 755 are allowed")
    if sum(piece.size for piece in file.pieces) != file.size:
        raise _bad(f"the pieces of {file.path!r} do not add up to its size")
    for piece in file.pieces:
        if piece.chunk >= len(chunks) or piece.offset + piece.size > chunks[piece.chunk].size:
            raise _bad(f"{file.path!r} reaches beyond its chunks")
