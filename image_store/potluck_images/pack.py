"""Packing: a tree on disk becomes chunks in a store and a manifest.

The calling thread walks and cuts, others hash and compress (both release the GIL). The order of the work, not of its
end, decides everything that is written into the manifest.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from typing import TypeVar, cast

from blake3 import blake3

from potluck_images import chunk
from potluck_images.chunk import SMALL_BYTES, Chunk
from potluck_images.config import LayerRef
from potluck_images.digest import digest
from potluck_images.errors import ImageBuildError
from potluck_images.image import put_manifest
from potluck_images.manifest import FORMAT, ChunkRef, Dir, Entry, File, Manifest, Piece, Symlink
from potluck_images.store import ChunkStore
from potluck_images.tree import Folder, HostFile, Link, Node, Text, Tree

# Pieces of a large file go to a thread in groups of about this size: less bookkeeping per byte.
_GROUP_BYTES = 1 << 20
# Raw bytes waiting to be compressed are at most this many groups per thread: memory stays at tens of megabytes.
_GROUPS_PER_THREAD = 4

Progress = Callable[[int], None]
Job = TypeVar("Job")


@dataclass(frozen=True, slots=True)
class _Packed:
    """One chunk that is done; `chunk` is None where the store has it already. `files` are those of a bundle."""

    digest: bytes
    size: int
    chunk: Chunk | None
    files: tuple[tuple[str, bytes, int], ...] = ()


def pack(tree: Tree, store: ChunkStore, progress: Progress = lambda done: None) -> LayerRef:
    """Store `tree` as one layer. `progress` receives the raw bytes packed so far; what it raises ends the packing.

    Raises `ImageBuildError` for files that cannot be read or change meanwhile, and `StoreFullError`.
    """
    with store.batch():
        packer = _Packer(store, progress)
        try:
            return put_manifest(store, packer.run(tree.sorted()))
        finally:
            packer.close()


class _Packer:
    def __init__(self, store: ChunkStore, progress: Progress) -> None:
        self._store, self._progress = store, progress
        threads = os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="pack")
        self._waiting: deque[tuple[str, Future[list[_Packed]]]] = deque()
        self._waiting_max = threads * _GROUPS_PER_THREAD
        self._done = 0
        # Per file: its digest, and (chunk digest, offset, size) of its pieces.
        self._digests: dict[str, bytes] = {}
        self._pieces: dict[str, list[tuple[bytes, int, int]]] = {}
        self._sizes: dict[bytes, int] = {}

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def run(self, nodes: list[tuple[str, Node]]) -> Manifest:
        files = {path: node for path, node in nodes if isinstance(node, HostFile | Text)}
        small = {path: node for path, node in files.items() if _size(node) < SMALL_BYTES}
        for names in chunk.bundles((path, _size(node)) for path, node in small.items()):
            self._submit("", lambda bundle: _pack_bundle(self._store, bundle), {name: small[name] for name in names})
        for path, node in files.items():
            if path not in small:
                self._pack_large(path, node)
        self._drain(0)
        return self._manifest(nodes)

    def _pack_large(self, path: str, node: HostFile | Text) -> None:
        hasher = blake3()
        for group in _groups(_cut(node)):
            for piece in group:
                hasher.update(piece)
            self._submit(path, lambda pieces: [_pack_piece(self._store, piece) for piece in pieces], group)
        self._digests[path] = hasher.digest()

    def _submit(self, path: str, work: Callable[[Job], list[_Packed]], job: Job) -> None:
        self._waiting.append((path, self._pool.submit(work, job)))
        self._drain(self._waiting_max)

    def _drain(self, left: int) -> None:
        """Take results in the order of submission until at most `left` wait."""
        while len(self._waiting) > left:
            path, future = self._waiting.popleft()
            for packed in future.result():
                self._take(path, packed)
            self._progress(self._done)

    def _take(self, path: str, packed: _Packed) -> None:
        if packed.chunk:
            self._store.put_chunk(packed.chunk)
        self._done += packed.size
        self._sizes[packed.digest] = packed.size
        if path:
            self._pieces.setdefault(path, []).append((packed.digest, 0, packed.size))
        offset = 0
        for name, content, size in packed.files:
            self._digests[name] = content
            self._pieces[name] = [(packed.digest, offset, size)] if size else []
            offset += size

    def _manifest(self, nodes: list[tuple[str, Node]]) -> Manifest:
        order: dict[bytes, int] = {}
        entries: list[Entry] = []
        for path, node in nodes:
            match node:
                case Folder():
                    entries.append(Dir(path))
                case Link(target):
                    entries.append(Symlink(path, target))
                case _:
                    entries.append(self._file(path, node, order))
        chunks = tuple(ChunkRef(digest, self._sizes[digest]) for digest in order)
        return Manifest(FORMAT, chunks, tuple(entries))

    def _file(self, path: str, node: HostFile | Text, order: dict[bytes, int]) -> File:
        pieces = tuple(
            Piece(order.setdefault(digest, len(order)), offset, size)
            for digest, offset, size in self._pieces.get(path, ())
        )
        mode = 0o755 if isinstance(node, HostFile) and node.executable else 0o644
        return File(path, mode, sum(piece.size for piece in pieces), self._digests[path], pieces)


def _size(node: HostFile | Text) -> int:
    return node.size if isinstance(node, HostFile) else len(node.data)


def _cut(node: HostFile | Text) -> Iterator[bytes]:
    if isinstance(node, Text):
        yield from chunk.cut(node.data)
        return
    try:
        with FileIO(node.source) as file:
            yield from chunk.cut_stream(file)
    except OSError as error:
        raise _unreadable(node, str(error)) from None


def _groups(pieces: Iterator[bytes]) -> Iterator[list[bytes]]:
    group: list[bytes] = []
    total = 0
    for piece in pieces:
        group.append(piece)
        total += len(piece)
        if total >= _GROUP_BYTES:
            yield group
            group, total = [], 0
    if group:
        yield group


def _pack_piece(store: ChunkStore, data: bytes) -> _Packed:
    name = digest(data)
    return _Packed(name, len(data), None if store.has(name) else chunk.pack(data))


def _pack_bundle(store: ChunkStore, nodes: dict[str, HostFile | Text]) -> list[_Packed]:
    contents = {path: _read_small(node) for path, node in nodes.items()}
    files = tuple((path, digest(data), len(data)) for path, data in contents.items())
    whole = b"".join(contents.values())
    if not whole:
        return [_Packed(b"", 0, None, files)]
    packed = _pack_piece(store, whole)
    return [_Packed(packed.digest, packed.size, packed.chunk, files)]


def _read_small(node: HostFile | Text) -> bytes:
    if isinstance(node, Text):
        return node.data
    try:
        with FileIO(node.source) as file:
            data = cast(bytes, file.read(SMALL_BYTES))
    except OSError as error:
        raise _unreadable(node, str(error)) from None
    if len(data) != node.size:
        raise _unreadable(node, "it changed while it was packed")
    return data


def _unreadable(node: HostFile, why: str) -> ImageBuildError:
    return ImageBuildError(
        f"{node.source} cannot be packed.", why=why, fix="Make it readable and leave it alone, or leave it out."
    )
