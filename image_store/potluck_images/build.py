"""Building: the steps of a definition, each on top of those before it, become layers in a store and an image id.

The same definition and the same inputs give the same id, on any machine. Results of steps are kept by a digest of what
they depend on; the user's own files are read anew each time.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from potluck_images import pip_install
from potluck_images.bytecode import compile_tree
from potluck_images.config import ImageConfig, LayerRef
from potluck_images.definition import AnyStep, Environment, ImageDefinition, LocalPython, PipInstall, Source, Workdir
from potluck_images.digest import digest
from potluck_images.errors import CorruptDataError, ImageBuildError, ImageError, NotFoundError
from potluck_images.image import get_manifest, put_config
from potluck_images.interpreter import Interpreter, find_interpreter
from potluck_images.local_python import PREFIX, SITE, python_tree, runtime_tree
from potluck_images.pack import pack
from potluck_images.packfile import clearer
from potluck_images.source import source_tree
from potluck_images.store import ChunkStore
from potluck_images.tree import HostFile, Tree
from potluck_images.unpack import unpack

# Changes when a step's result does without its inputs doing so.
_CACHE_FORMAT = 1

# What builds that were killed left behind is removed after this long; none takes a day.
_LEFT_BEHIND_S = 24 * 3600

# Called with (stage, text) for the user, often while something runs; what it raises cancels the build.
Progress = Callable[[str, str], None]
MakeTree = Callable[[Path], tuple[Tree, dict[str, str]]]


class _Layer(msgspec.Struct, frozen=True, array_like=True):
    """A step's result, as it is cached."""

    ref: LayerRef
    env: tuple[tuple[str, str], ...] = ()


def build(
    definition: ImageDefinition, store: ChunkStore, cache_dir: Path, progress: Progress = lambda stage, text: None
) -> str:
    """Build the image and return its id (hex). Blocking: to be called in a thread; `progress` cancels by raising.

    Raises `ImageBuildError`, `PythonVersionError`, `ImageError`, `StoreFullError`. Temporary files lie in `cache_dir`
    and are removed in any case.
    """
    try:
        builder = _Builder(store, cache_dir.absolute(), progress)
        for step in definition.steps:
            builder.run(step)
        return put_config(store, builder.config())
    except OSError as error:
        raise clearer(error) from None


class _Builder:
    def __init__(self, store: ChunkStore, cache_dir: Path, progress: Progress) -> None:
        self._store, self._progress = store, progress
        self._cache, self._temporary = cache_dir / "steps", cache_dir / "tmp"
        for folder in (self._cache, self._temporary):
            folder.mkdir(parents=True, exist_ok=True)
        _remove_left_behind(self._temporary)
        self._layers: list[LayerRef] = []
        self._env: dict[str, str] = {}
        self._workdir = "/app"
        self._python: Interpreter | None = None
        self._site: LayerRef | None = None

    def run(self, step: AnyStep) -> None:
        match step:
            case LocalPython():
                self._run_local_python(step)
            case PipInstall():
                self._run_pip_install(step)
            case Source():
                self._progress("source", ", ".join(path for path, _ in step.files))
                self._layers.append(self._pack("source", source_tree(step)))
            case Environment(variables):
                self._env |= dict(variables)
            case Workdir(path):
                self._workdir = path

    def config(self) -> ImageConfig:
        return ImageConfig(
            layers=tuple(self._layers),
            env=tuple(sorted(self._env.items())),
            workdir=self._workdir,
            python=f"/{PREFIX}/bin/python3" if self._python else "",
            python_version=self._python.version if self._python else "",
            machine=self._python.machine if self._python else "",
        )

    def _run_local_python(self, step: LocalPython) -> None:
        if self._python:
            raise ImageBuildError("The image has two Pythons.", fix="Keep one LocalPython step, the first.")
        self._progress("python", f"Python {step.version}")
        self._python = python = find_interpreter(step.executable, step.version)
        base = self._cached("python", python.identity(), lambda work: python_tree(python, work, self._say_compiled))
        self._env = dict(base.env) | self._env
        packages = runtime_tree(python)
        key = [python.cache_tag, python.version, _content(packages)]
        runtime = self._cached("runtime", key, lambda work: (self._compiled(packages, work), {}))
        self._layers += [base.ref, runtime.ref]

    def _run_pip_install(self, step: PipInstall) -> None:
        if not step.packages:
            return
        python = self._python
        if python is None:
            raise ImageBuildError("pip_install needs a Python below it.", fix="Begin the image with LocalPython.")
        self._progress("pip", ", ".join(step.packages))
        below = self._site
        key = [pip_install.inputs(step), python.identity(), below.layer if below else ""]
        self._site = self._cached("pip", key, lambda work: (self._install(python, step, below, work), {})).ref
        # Packages may be upgraded by a later step: its layer has all of them and takes the place of the one before.
        if below in self._layers:
            self._layers[self._layers.index(below)] = self._site
        else:
            self._layers.append(self._site)

    def _install(self, python: Interpreter, step: PipInstall, below: LayerRef | None, work: Path) -> Tree:
        root = work / "root"
        root.mkdir()
        if below:
            unpack(self._store, below, root)
        site, byte_code = root / SITE, work / "pyc"
        site.mkdir(parents=True, exist_ok=True)
        byte_code.mkdir()
        return pip_install.site_tree(python, step, site, byte_code, lambda text: self._progress("pip", text))

    def _compiled(self, tree: Tree, work: Path) -> Tree:
        assert self._python
        compile_tree(tree, self._python, work, self._say_compiled)
        return tree

    def _cached(self, stage: str, inputs: Sequence[object], make: MakeTree) -> _Layer:
        """The layer of an earlier build with the same inputs, if the store still has all of it, or a new one."""
        place = self._cache / digest(msgspec.msgpack.encode([_CACHE_FORMAT, stage, inputs])).hex()
        if found := self._find(place):
            return found
        with self._work_folder() as work:
            tree, env = make(work)
            layer = _Layer(self._pack(stage, tree), tuple(env.items()))
            fresh = work / "result"
            fresh.write_bytes(msgspec.msgpack.encode(layer))
            fresh.replace(place)
        return layer

    def _find(self, place: Path) -> _Layer | None:
        try:
            layer = msgspec.msgpack.decode(place.read_bytes(), type=_Layer)
            chunks = [chunk.digest for chunk in get_manifest(self._store, layer.ref).chunks]
        except (OSError, msgspec.DecodeError, NotFoundError, CorruptDataError, ImageError):
            return None
        return None if self._store.missing(chunks) else layer

    def _pack(self, stage: str, tree: Tree) -> LayerRef:
        return pack(tree, self._store, lambda done: self._progress(stage, f"packed {done >> 20} MiB"))

    def _say_compiled(self, done: int, total: int) -> None:
        self._progress("python", f"byte code {done}/{total}")

    @contextmanager
    def _work_folder(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self._temporary, ignore_cleanup_errors=True) as folder:
            yield Path(folder)


def _content(tree: Tree) -> list[object]:
    """Paths and digests of a small tree's files."""
    files = [(path, node) for path, node in tree.sorted() if isinstance(node, HostFile)]
    return [[path, digest(node.source.read_bytes())] for path, node in files]


def _remove_left_behind(folder: Path) -> None:
    for path in folder.iterdir():
        if time.time() - path.stat().st_mtime > _LEFT_BEHIND_S:
            shutil.rmtree(path, ignore_errors=True)
