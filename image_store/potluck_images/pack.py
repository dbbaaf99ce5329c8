"""Packing: a tree on disk becomes chunks in a store and a manifest.

Each file or bundle is one job for a pool of threads; reading, cutting, hashing and compressing all release the GIL. A
thread holds one piece at a time. The manifest is made from the results in the order of paths, whatever came first.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from io import FileIO

from blake3 import blake3

from potluck_images import chunk
from potluck_images.chunk import SMALL_BYTES
from potluck_images.config import LayerRef
from potluck_images.digest import digest
from potluck_images.errors import ImageBuildError
from potluck_images.image import put_manifest
from potluck_images.manifest import FORMAT, ChunkRef, Dir, Entry, File, Manifest, Piece, Symlink
from potluck_images.store import ChunkStore
from potluck_images.tree import Folder, HostFile, Link, Text, Tree

# How often `progress` is called, and may cancel, while one large file is packed.
_HEARTBEAT_S = 0.5

Progress = Callable[[int], None]


class _StoppedError(Exception):
    """Ends the other threads after the first failure."""


@dataclass(frozen=True, slots=True)
class _Content:
    """A file's digest, and (chunk digest, offset, size) of its pieces."""

    digest: bytes
    pieces: tuple[tuple[bytes, int, int], ...]


_Contents = dict[str, _Content]


def pack(tree: Tree, store: ChunkStore, progress: Progress = lambda done: None) -> LayerRef:
    """Store `tree` as one layer. `progress` receives the raw bytes packed so far; what it raises ends the packing.

    Raises `ImageBuildError` for files that cannot be read or change meanwhile, and `StoreFullError`.
    """
    files = {path: node for path, node in tree.sorted() if isinstance(node, HostFile | Text)}
    with store.batch():
        packer = _Packer(store)
        contents = packer.run(files, progress)
        return put_manifest(store, _manifest(tree, contents, packer.sizes))


class _Packer:
    def __init__(self, store: ChunkStore) -> None:
        self._store = store
        self._stopped = threading.Event()
        # Raw size of each chunk, by digest.
        self.sizes: dict[bytes, int] = {}
        self._lock = threading.Lock()
        self._done = 0

    def run(self, files: dict[str, HostFile | Text], progress: Progress) -> _Contents:
        small = {path: node for path, node in files.items() if _size(node) < SMALL_BYTES}
        # The largest first, so that none is left to a single thread at the end.
        large = sorted((path for path in files if path not in small), key=lambda path: -_size(files[path]))
        bundles = chunk.bundles((path, _size(node)) for path, node in small.items())
        with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="pack") as pool:
            # One thread for all bundles: it makes a system call each 10 µs, and threads that hand the interpreter to
            # each other that often are slower than one.
            jobs = [pool.submit(self._pack_bundles, small, list(bundles))]
            jobs += [pool.submit(self._pack_large, path, files[path]) for path in large]
            try:
                return self._collect(jobs, progress)
            finally:
                self._stopped.set()
                pool.shutdown(cancel_futures=True)

    def _collect(self, jobs: list[Future[_Contents]], progress: Progress) -> _Contents:
        contents: _Contents = {}
        for job in jobs:
            while not job.done():
                wait([job], _HEARTBEAT_S)
                progress(self._done)
            contents |= job.result()
        return contents

    def _pack_large(self, path: str, node: HostFile | Text) -> _Contents:
        hasher = blake3()
        pieces = []
        for piece in _cut(node):
            hasher.update(piece)
            pieces.append((self._put(piece), 0, len(piece)))
        return {path: _Content(hasher.digest(), tuple(pieces))}

    def _pack_bundles(self, nodes: dict[str, HostFile | Text], bundles: list[list[str]]) -> _Contents:
        contents: _Contents = {}
        for paths in bundles:
            contents |= self._pack_bundle({path: nodes[path] for path in paths})
        return contents

    def _pack_bundle(self, nodes: dict[str, HostFile | Text]) -> _Contents:
        files = {path: _read_small(node) for path, node in nodes.items()}
        whole = b"".join(files.values())
        name = self._put(whole) if whole else b""
        contents: _Contents = {}
        offset = 0
        for path, data in files.items():
            contents[path] = _Content(digest(data), ((name, offset, len(data)),) if data else ())
            offset += len(data)
        return contents

    def _put(self, data: bytes | memoryview) -> bytes:
        if self._stopped.is_set():
            raise _StoppedError
        name = digest(data)
        if not self._store.has(name):
            self._store.put_chunk(chunk.pack(data))
        with self._lock:
            self.sizes[name] = len(data)
            self._done += len(data)
        return name


def _manifest(tree: Tree, contents: _Contents, sizes: dict[bytes, int]) -> Manifest:
    order: dict[bytes, int] = {}
    entries: list[Entry] = []
    for path, node in tree.sorted():
        match node:
            case Folder():
                entries.append(Dir(path))
            case Link(target):
                entries.append(Symlink(path, target))
            case _:
                entries.append(_file(path, node, contents[path], order))
    return Manifest(FORMAT, tuple(ChunkRef(name, sizes[name]) for name in order), tuple(entries), tuple(tree.removed()))


def _file(path: str, node: HostFile | Text, content: _Content, order: dict[bytes, int]) -> File:
    pieces = tuple(Piece(order.setdefault(name, len(order)), offset, size) for name, offset, size in content.pieces)
    mode = 0o755 if isinstance(node, HostFile) and node.executable else 0o644
    return File(path, mode, sum(piece.size for piece in pieces), content.digest, pieces)


def _size(node: HostFile | Text) -> int:
    return node.size if isinstance(node, HostFile) else len(node.data)


def _cut(node: HostFile | Text) -> Iterator[memoryview]:
    if isinstance(node, Text):
        yield from chunk.cut(node.data)
        return
    try:
        with FileIO(node.source) as file:
            yield from chunk.cut_stream(file)
    except OSError as error:
        raise _unreadable(node, str(error)) from None


def _read_small(node: HostFile | Text) -> bytes:
    if isinstance(node, Text):
        return node.data
    try:
        file = os.open(node.source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # One byte more than it should have: a file that grew shows.
            data = os.read(file, node.size + 1)
        finally:
            os.close(file)
    except OSError as error:
        raise _unreadable(node, str(error)) from None
    if len(data) != node.size:
        raise _unreadable(node, "it changed while it was packed")
    return data


def _unreadable(node: HostFile, why: str) -> ImageBuildError:
    return ImageBuildError(
        f"{node.source} cannot be packed.", why=why, fix="Make it readable and leave it alone, or leave it out."
    )
