"""How an image is described: the steps that a builder runs. Small and cheap to import: the SDK loads it everywhere."""

from __future__ import annotations

import msgspec


class Step(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Base of all build steps.

    Steps that run something name their `secrets`: variables whose values travel beside the definition and are no part
    of the result. `gpu` is what they ask for, the preferred first, as in `@app.function(gpu=…)`.
    """


class LocalPython(Step, frozen=True):
    """The caller's own interpreter and the shared libraries it needs, found through `executable`.

    `version` is "major.minor.micro", and the builder refuses when the executable says another; "" takes any.
    """

    executable: str
    version: str


class DebianSlim(Step, frozen=True):
    """A minimal Debian: the release whose own Python is the caller's (`executable`, `version` as in `LocalPython`)."""

    executable: str
    version: str
    force: bool = False


class Registry(Step, frozen=True):
    """An image of an OCI registry. `add_python` copies the caller's own interpreter (`executable`, `version`) on top;
    otherwise the image's own must be of the same "major.minor" version, or functions cannot run in it."""

    reference: str
    executable: str
    version: str
    add_python: bool = False
    force: bool = False


class Existing(Step, frozen=True):
    """An image that the store has, by its id in hex (`executable`, `version` as in `LocalPython`)."""

    image: str
    executable: str
    version: str


class Scratch(Step, frozen=True):
    """Nothing at all."""


class PipInstall(Step, frozen=True):
    """Packages installed with uv for the interpreter below. `options` are passed on: index, find-links, pre…

    `requirements` are requirement files on this machine, `project` a folder with pyproject.toml and uv.lock, or "".
    `project_options` choose from the lock: extra, group, no-group…; `locked` is the text of one more requirements file.
    """

    packages: tuple[str, ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    requirements: tuple[str, ...] = ()
    project: str = ""
    project_options: tuple[tuple[str, str], ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    force: bool = False
    locked: str = ""
    secrets: tuple[str, ...] = ()
    gpu: tuple[str, ...] = ()


class AptInstall(Step, frozen=True):
    """Debian packages and what they depend on."""

    packages: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    force: bool = False
    secrets: tuple[str, ...] = ()
    gpu: tuple[str, ...] = ()


class Run(Step, frozen=True):
    """Commands, each given to the image's shell, with the network. `env` is theirs alone. A change of any of this, or
    of what lies below, or `force`, runs all of them again."""

    commands: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    force: bool = False
    secrets: tuple[str, ...] = ()
    gpu: tuple[str, ...] = ()


class RunFunction(Step, frozen=True):
    """A call of a Python function, as cloudpickle wrote it: (function, arguments, keyword arguments). It runs like a
    command, for at most `timeout_s` seconds."""

    name: str
    pickled: bytes
    env: tuple[tuple[str, str], ...] = ()
    timeout_s: int = 3600
    force: bool = False
    secrets: tuple[str, ...] = ()
    gpu: tuple[str, ...] = ()


class Environment(Step, frozen=True):
    variables: tuple[tuple[str, str], ...]


class Workdir(Step, frozen=True):
    path: str


class Shell(Step, frozen=True):
    """What `Run` hands its commands to, as one more argument."""

    words: tuple[str, ...]


class Entrypoint(Step, frozen=True):
    words: tuple[str, ...]


class Cmd(Step, frozen=True):
    words: tuple[str, ...]


class Source(Step, frozen=True):
    """Local files: pairs of (absolute path in the image, absolute path on this machine). A folder is taken whole,
    without byte-code caches and hidden folders."""

    files: tuple[tuple[str, str], ...]


class AddFiles(Step, frozen=True):
    """One local file or folder, all of it but what `ignore` names: patterns as in a .dockerignore file."""

    path: str
    local: str
    ignore: tuple[str, ...] = ()


class Places(Step, frozen=True):
    """Empty folders on which something is mounted later."""

    paths: tuple[str, ...]


AnyStep = (
    LocalPython
    | DebianSlim
    | Registry
    | Existing
    | Scratch
    | PipInstall
    | AptInstall
    | Run
    | RunFunction
    | Environment
    | Workdir
    | Shell
    | Entrypoint
    | Cmd
    | Source
    | AddFiles
    | Places
)


class ImageDefinition(msgspec.Struct, frozen=True, array_like=True):
    """An image as its steps, from the base upwards."""

    steps: tuple[AnyStep, ...] = ()
