"""A definition for another machine: its local files are packed as an image of their own, and steps name what is in it.

The builder takes the other side for an attacker: whatever a step names on its machine must lie in what was shipped.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from potluck_images import pip_install
from potluck_images.config import ImageConfig
from potluck_images.definition import (
    AddFiles,
    AnyStep,
    DebianSlim,
    ImageDefinition,
    LocalPython,
    PipInstall,
    Registry,
    Source,
)
from potluck_images.errors import ImageBuildError, PythonVersionError
from potluck_images.image import get_config, put_config
from potluck_images.interpreter import find_interpreter
from potluck_images.pack import pack
from potluck_images.process import Say
from potluck_images.source import added_tree, source_tree
from potluck_images.store import ChunkStore
from potluck_images.tree import Folder, Tree
from potluck_images.unpack import unpack

# Before the path of a file in what was shipped.
SHIPPED = "shipped:"
_WHEELS = (".whl", ".tar.gz", ".zip")
_ALTERNATIVE = "Begin with Image.debian_slim(), which is the same everywhere; or build it on your own node."


def ship(
    definition: ImageDefinition, store: ChunkStore, say: Say, secrets: Mapping[int, Mapping[str, str]]
) -> tuple[ImageDefinition, str]:
    """The definition as another machine can build it, and the image with its files ("": there are none). Blocking.

    Raises `ImageBuildError` for what cannot be built elsewhere and for files that cannot be read.
    """
    shipper = _Shipper(say)
    with tempfile.TemporaryDirectory(prefix="potluck-ship-") as work:
        steps = tuple(
            shipper.step(step, Path(work), secrets.get(number, {})) for number, step in enumerate(definition.steps)
        )
    if not shipper.tree.sorted():
        return ImageDefinition(steps), ""
    ref = pack(shipper.tree, store, lambda done: say(f"packed {done >> 20} MiB"))
    return ImageDefinition(steps), put_config(store, ImageConfig(layers=(ref,)))


class _Shipper:
    def __init__(self, say: Say) -> None:
        self.tree, self._say, self._count = Tree(), say, 0

    def step(self, step: AnyStep, work: Path, secrets: Mapping[str, str]) -> AnyStep:
        match step:
            case LocalPython():
                raise ImageBuildError(
                    "Image.local_python() cannot be built on another node.",
                    why="it is made of the interpreter and the libraries of this machine",
                    fix=_ALTERNATIVE,
                )
            case DebianSlim() | Registry():
                return msgspec.structs.replace(step, executable="")
            case AddFiles():
                return msgspec.structs.replace(step, local=self._add(step.path, added_tree(step)))
            case Source():
                pairs = [(path, self._add(path, source_tree(Source(((path, local),))))) for path, local in step.files]
                return Source(tuple(pairs))
            case PipInstall():
                return self._packages(step, work, secrets)
        return step

    def _add(self, path: str, tree: Tree) -> str:
        """What is to be at `path` in the image. As deep as there, so that its links lead no further up than there."""
        folder = str(self._count)
        self._count += 1
        self.tree.put(folder, Folder())
        for inside, node in tree.sorted():
            self.tree.put(f"{folder}/{inside}", node)
        return f"{SHIPPED}{folder}/{path.strip('/')}".rstrip("/")

    def _packages(self, step: PipInstall, work: Path, secrets: Mapping[str, str]) -> PipInstall:
        """Lock and requirement files are read here and travel as text."""
        folder = Path(tempfile.mkdtemp(dir=work))
        files = pip_install.requirement_files(step, folder, self._say, secrets)
        try:
            locked = "\n".join(Path(name).read_text() for name in files)
        except (OSError, UnicodeDecodeError) as error:
            raise ImageBuildError("A file that names packages cannot be read.", why=str(error)) from None
        packages = tuple(self._wheels([Path(name)]) if os.path.isfile(name) else name for name in step.packages)
        options = tuple((name, self._links(name, value)) for name, value in step.options)
        return msgspec.structs.replace(
            step, packages=packages, options=options, locked=locked, requirements=(), project="", project_options=()
        )

    def _links(self, name: str, value: str) -> str:
        if name.removeprefix("--") != "find-links" or not os.path.isdir(value):
            return value
        return self._wheels(path for path in Path(value).iterdir() if path.name.endswith(_WHEELS)).rpartition("/")[0]

    def _wheels(self, files: Iterable[Path]) -> str:
        tree, name = Tree(), ""
        for file in files:
            name = file.name
            tree.put_file(name, file)
        return self._add(f"/{name or 'none'}", tree)


def unship(definition: ImageDefinition, store: ChunkStore, shipped: str, folder: Path) -> ImageDefinition:
    """The definition for this machine; what was shipped is written into the empty `folder`. Blocking.

    Raises `ImageBuildError` for what is not built for others, and for steps that name anything else of this machine.
    """
    if shipped:
        layers = get_config(store, shipped).layers
        if len(layers) != 1:
            raise ImageBuildError("What was shipped with an image is no single layer.")
        unpack(store, layers[0], folder)
    return ImageDefinition(tuple(_own_step(step, folder) for step in definition.steps))


def _own_step(step: AnyStep, folder: Path) -> AnyStep:
    match step:
        case LocalPython():
            raise ImageBuildError("Image.local_python() is not built for others.", fix=_ALTERNATIVE)
        case Registry():
            raise ImageBuildError(
                "Image.from_registry() is not built for others.",
                why="pulling would use the logins and the network of the node that builds",
                fix=_ALTERNATIVE,
            )
        case DebianSlim():
            return msgspec.structs.replace(step, executable=sys.executable, version=_own_version(step.version))
        case AddFiles():
            return msgspec.structs.replace(step, local=_own_path(step.local, folder))
        case Source():
            return Source(tuple((path, _own_path(local, folder)) for path, local in step.files))
        case PipInstall():
            return _own_packages(step, folder)
    return step


def _own_version(wanted: str) -> str:
    """This machine's interpreter compiles what Potluck adds: byte code is the same within a "major.minor"."""
    own = find_interpreter(sys.executable, "").version
    if own.split(".")[:2] != wanted.split(".")[:2]:
        raise PythonVersionError(
            f"The image is for Python {wanted}; the node that should build it runs {own}.",
            fix="Build it on your own node, or on one with the same version of Python.",
        )
    return own


def _own_packages(step: PipInstall, folder: Path) -> PipInstall:
    if step.requirements or step.project:
        raise _names_ours("a requirements file or project")
    packages = tuple(_own_package(name, folder) for name in step.packages)
    options = tuple(
        (name, _own_package(value, folder) if name.removeprefix("--") == "find-links" else value)
        for name, value in step.options
    )
    return msgspec.structs.replace(step, packages=packages, options=options)


def _own_package(name: str, folder: Path) -> str:
    if not name.startswith(SHIPPED):
        if os.path.lexists(name):
            raise _names_ours(name)
        return name
    path = Path(_own_path(name, folder))
    if any(each.is_symlink() for each in path.rglob("*")):
        raise _names_ours(name)
    return str(path)


def _own_path(name: str, folder: Path) -> str:
    """Raises `ImageBuildError` when it leads anywhere else, be it through a link that was shipped."""
    path, root = folder / name.removeprefix(SHIPPED), folder.resolve()
    real = path.resolve()
    if not name.startswith(SHIPPED) or not real.is_relative_to(root) or real != root / name.removeprefix(SHIPPED):
        raise _names_ours(name)
    return str(path)


def _names_ours(name: str) -> ImageBuildError:
    return ImageBuildError(f"A step names {name[:200]!r}, which was not shipped with the image.")
