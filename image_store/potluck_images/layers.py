"""Results of build steps, kept by a digest of what they depend on."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from potluck_images.config import LayerRef
from potluck_images.digest import digest
from potluck_images.errors import CorruptDataError, ImageError, NotFoundError
from potluck_images.image import get_manifest
from potluck_images.pack import pack
from potluck_images.store import ChunkStore
from potluck_images.tree import Tree

# Changes when a step's result does without its inputs doing so.
_CACHE_FORMAT = 2

# What builds that were killed left behind is removed after this long; none takes a day.
_LEFT_BEHIND_S = 24 * 3600

# Called with (stage, text) for the user, often while something runs; what it raises cancels the build.
Progress = Callable[[str, str], None]


@dataclass(frozen=True)
class Made:
    """A step's result before it is packed. `about` is for the step itself to read."""

    tree: Tree
    env: dict[str, str] = field(default_factory=dict)
    about: str = ""


class Layer(msgspec.Struct, frozen=True, array_like=True):
    """A step's result, as it is cached."""

    ref: LayerRef
    env: tuple[tuple[str, str], ...] = ()
    about: str = ""


class LayerCache:
    """Keeps results below `folder`, and temporary files until their step has ended."""

    def __init__(self, store: ChunkStore, folder: Path, progress: Progress) -> None:
        self._store, self._progress = store, progress
        self._steps, self._temporary = folder / "steps", folder / "tmp"
        for each in (self._steps, self._temporary):
            each.mkdir(parents=True, exist_ok=True)
        _remove_left_behind(self._temporary)

    def get(self, stage: str, inputs: Sequence[object], make: Callable[[Path], Made], force: bool = False) -> Layer:
        """The layer of an earlier build with the same inputs, if the store still has all of it, or a new one, for
        which `make` gets an empty folder. `force` makes a new one in any case."""
        if not force and (found := self.find(stage, inputs)):
            return found
        with self.folder() as work:
            made = make(work)
            layer = Layer(self.pack(stage, made.tree), tuple(made.env.items()), made.about)
        self.keep(stage, inputs, layer)
        return layer

    def find(self, stage: str, inputs: Sequence[object]) -> Layer | None:
        """What `keep` was given for the same inputs, if the store still has all of it."""
        try:
            layer = msgspec.msgpack.decode(self._place(stage, inputs).read_bytes(), type=Layer)
            chunks = [chunk.digest for chunk in get_manifest(self._store, layer.ref).chunks]
        except (OSError, msgspec.DecodeError, NotFoundError, CorruptDataError, ImageError):
            return None
        return None if self._store.missing(chunks) else layer

    def keep(self, stage: str, inputs: Sequence[object], layer: Layer) -> None:
        """For later builds."""
        with self.folder() as work:
            fresh = work / "result"
            fresh.write_bytes(msgspec.msgpack.encode(layer))
            fresh.replace(self._place(stage, inputs))

    def _place(self, stage: str, inputs: Sequence[object]) -> Path:
        return self._steps / digest(msgspec.msgpack.encode([_CACHE_FORMAT, stage, inputs])).hex()

    def pack(self, stage: str, tree: Tree) -> LayerRef:
        return pack(tree, self._store, lambda done: self._progress(stage, f"packed {done >> 20} MiB"))

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A temporary one."""
        with tempfile.TemporaryDirectory(dir=self._temporary, ignore_cleanup_errors=True) as folder:
            yield Path(folder)


def _remove_left_behind(folder: Path) -> None:
    for path in folder.iterdir():
        if time.time() - path.stat().st_mtime > _LEFT_BEHIND_S:
            shutil.rmtree(path, ignore_errors=True)
