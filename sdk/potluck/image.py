"""`Image`: the environment that a function runs in, described next to it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from potluck import image_checks as checks
from potluck.absent import Absent
from potluck.errors import InvalidError
from potluck.image_packages import Env, Gpu, PackageSteps, Secrets
from potluck.secret import Secret, values

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

    from potluck_images.definition import ImageDefinition

P = ParamSpec("P")

# A step as (name of its class in potluck_images.definition, its arguments): describing an image must cost a program's
# start nothing, and those classes need msgspec. Or (function, its arguments), which gives such steps when the image is
# about to be built: files are read then, by the caller, and never where the module is imported again in a sandbox.
_Step = tuple[Any, tuple[Any, ...]]

# Told by an environment variable, as `potluck_node.sandbox.interface.MARKER`.
_IN_SANDBOX = "POTLUCK_SANDBOX"

Ignore = Sequence[str] | Callable[["Path"], bool]


class Image(Absent, PackageSteps):
    """An immutable description; each method returns a new one with a step more. Built only when it is needed.

    Names and meaning are Modal's. Steps that run something take `env`, variables for that step alone, and
    `force_build`, which runs it and all steps after it again in each build; `secrets`, variables that never reach the
    image; and `gpu`, as `@app.function` does. All raise `InvalidError` for what cannot work.
    """

    def __init__(self, steps: tuple[_Step, ...], late: tuple[_Step, ...] = ()) -> None:
        # `late` steps add files without copy=True: they come last, so that a change to them runs nothing again.
        self._steps, self._late = steps, late

    # Bases

    @classmethod
    def local_python(cls, executable: str | Path | None = None) -> Image:
        """The interpreter of this program (or `executable`, which must have the same "major.minor" version) with its
        standard library and shared libraries, and nothing else. The default."""
        version = "" if executable else checks.own_version()
        return cls((("LocalPython", (str(executable or sys.executable), version)),))

    @classmethod
    def debian_slim(cls, python_version: str | None = None, force_build: bool = False) -> Image:
        """A minimal Debian with a Python of the caller's version: Debian's own, or else the caller's. Raises
        `PythonVersionError` when another version is asked for."""
        checks.same_python("debian_slim", python_version)
        return cls((("DebianSlim", (sys.executable, checks.own_version(), force_build)),))

    @classmethod
    def from_registry(
        cls,
        tag: str,
        secret: object = None,
        *,
        setup_dockerfile_commands: Sequence[str] = (),
        force_build: bool = False,
        add_python: str | None = None,
    ) -> Image:
        """An image of an OCI registry, such as "python:3.11-slim". It has a Python of the caller's version, or gets
        the caller's own with `add_python`. Raises `PythonVersionError` for another one."""
        checks.unsupported("from_registry", secret=secret)
        checks.same_python("from_registry", add_python)
        step = ("Registry", (tag, sys.executable, checks.own_version(), add_python is not None, force_build))
        return cls((step,)).dockerfile_commands(*setup_dockerfile_commands)

    @classmethod
    def from_dockerfile(
        cls,
        path: str | Path,
        *,
        force_build: bool = False,
        context_dir: str | Path | None = None,
        ignore: Sequence[str] | None = None,
        build_args: Mapping[str, str] | None = None,
        registry_secret: object = None,
        secrets: Secrets = None,
        env: Env = None,
        gpu: Gpu = None,
        add_python: str | None = None,
    ) -> Image:
        """What a Dockerfile with one stage describes. Files of `context_dir` (by default the Dockerfile's folder) that
        its .dockerignore names are not copied, unless `ignore` says otherwise."""
        checks.unsupported("from_dockerfile", registry_secret=registry_secret)
        checks.same_python("from_dockerfile", add_python)
        options = {"env": checks.variables("from_dockerfile", env), "force": force_build, "ignore": ignore}
        more: dict[str, Any] = {"build_args": dict(build_args or {}), "add_python": add_python}
        more["granted"] = checks.granted("from_dockerfile", secrets, gpu)
        return cls(((_dockerfile, (str(path), _text(context_dir), options | more)),))

    @classmethod
    def from_scratch(cls, force_build: bool = False) -> Image:
        """Nothing at all: for files alone, or to be filled by `add_local_dir`."""
        return cls((("Scratch", ()),))

    @classmethod
    def from_id(cls, image_id: str) -> Image:
        """An image that the node has, by its id: of a snapshot of a sandbox, for example, or from `potluck image ls`.
        Steps can follow. Raises `InvalidError`; when it is used, `ImageBuildError` if it is not there any more."""
        image = checks.image_id(image_id)
        return cls((("Existing", (image, sys.executable, checks.own_version())),))

    @property
    def object_id(self) -> str:
        """By which `from_id` finds it. Raises `InvalidError` for one that steps describe: `potluck image ls` shows the
        ids of those."""
        ((name, arguments), *others) = (*self._steps, *self._late)
        if name != "Existing" or others:
            raise InvalidError("This image is known by its steps.", fix="See `potluck image ls` for its id.")
        return f"im-{arguments[0]}"

    @classmethod
    def micromamba(cls, python_version: str | None = None, force_build: bool = False) -> Image:
        """Not possible: micromamba comes from no package registry that images are built from."""
        raise InvalidError(
            "Image.micromamba() is not available.",
            why="micromamba is in none of the registries that images are built from (Debian's and Python's).",
            fix='Use Image.from_registry("mambaorg/micromamba", add_python=…), or debian_slim() with pip_install().',
        )

    # Commands

    def run_commands(
        self,
        *commands: str | list[str],
        env: Env = None,
        secrets: Secrets = None,
        volumes: object = None,
        gpu: Gpu = None,
        force_build: bool = False,
    ) -> Image:
        """Run commands in the image's shell as its root, with the network; what they change becomes part of it."""
        checks.unsupported("run_commands", volumes=volumes)
        flat = tuple(checks.flatten("run_commands", commands))
        variables, granted = checks.variables("run_commands", env), checks.granted("run_commands", secrets, gpu)
        return self._build("Run", flat, variables, force_build, *granted) if flat else self

    def run_function(
        self,
        raw_f: Callable[..., Any],
        *,
        env: Env = None,
        secrets: Secrets = None,
        volumes: object = None,
        gpu: Gpu = None,
        timeout: int = 3600,
        force_build: bool = False,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Image:
        """Run a Python function in the image, to fetch a model for example. It travels by value, without the rest of
        its module. `timeout` is in seconds."""
        checks.unsupported("run_function", volumes=volumes)
        rest = (checks.variables("run_function", env), timeout, force_build)
        granted = checks.granted("run_function", secrets, gpu)
        return self._build(_function, raw_f, tuple(args), dict(kwargs or {}), (*rest, *granted))

    def dockerfile_commands(
        self,
        *dockerfile_commands: str | list[str],
        context_files: Mapping[str, str] | None = None,
        env: Env = None,
        secrets: Secrets = None,
        gpu: Gpu = None,
        context_dir: str | Path | None = None,
        force_build: bool = False,
        ignore: Sequence[str] | None = None,
        build_args: Mapping[str, str] | None = None,
    ) -> Image:
        """Lines of a Dockerfile on top of this image. `context_files` maps names that COPY uses to local paths."""
        lines = checks.flatten("dockerfile_commands", dockerfile_commands)
        options = {"env": checks.variables("dockerfile_commands", env), "force": force_build, "ignore": ignore}
        files = {name: os.path.abspath(local) for name, local in (context_files or {}).items()}
        more: dict[str, Any] = {"build_args": dict(build_args or {}), "context_files": files}
        more["granted"] = checks.granted("dockerfile_commands", secrets, gpu)
        return self._build(_docker_lines, "\n".join(lines), _text(context_dir), options | more) if lines else self

    # How programs start

    def env(self, vars: Mapping[str, str]) -> Image:
        """Set environment variables."""
        return self._with("Environment", checks.variables("env", vars))

    def workdir(self, path: str | PurePosixPath) -> Image:
        """The folder in which functions run; absolute. It is made if it is not there."""
        if not str(path).startswith("/"):
            raise InvalidError(f"workdir({str(path)!r}) is not an absolute path.")
        return self._with("Workdir", str(path))

    def shell(self, shell_commands: list[str]) -> Image:
        """What `run_commands` hands its commands to, for example ["/bin/bash", "-c"]."""
        return self._with("Shell", checks.words("shell", shell_commands))

    def entrypoint(self, entrypoint_commands: list[str]) -> Image:
        """Kept in the image for other runtimes; functions do not start through it."""
        return self._with("Entrypoint", checks.words("entrypoint", entrypoint_commands, empty=True))

    def cmd(self, cmd: list[str]) -> Image:
        """Kept in the image for other runtimes; functions do not start through it."""
        return self._with("Cmd", checks.words("cmd", cmd, empty=True))

    # Local files

    def add_local_file(self, local_path: str | Path, remote_path: str, *, copy: bool = False) -> Image:
        """Add one file at an absolute path; a path that ends in "/" is its folder. Files come last, and no step that
        runs something can follow, unless `copy` puts them where they stand."""
        target = remote_path + os.path.basename(local_path) if remote_path.endswith("/") else remote_path
        return self._add(copy, "AddFiles", checks.target("add_local_file", target), os.path.abspath(local_path), ())

    def add_local_dir(
        self, local_path: str | Path, remote_path: str, *, copy: bool = False, ignore: Ignore = ()
    ) -> Image:
        """Add a folder at an absolute path, but for what `ignore` names: patterns as in a .dockerignore file, or a
        function of a path. `copy` as for `add_local_file`."""
        target = checks.target("add_local_dir", remote_path)
        return self._add(copy, _folder, os.path.abspath(local_path), target, ignore)

    def add_local_python_source(self, *modules: str, copy: bool = False, ignore: Ignore | None = None) -> Image:
        """Add modules that this program can import, at /app, where functions find them; by default their .py files.
        `copy` as for `add_local_file`."""
        image = self
        for module in checks.package_names("add_local_python_source", modules):
            image = image._add(copy, _module, module, ignore)
        return image

    # Others

    def pipe(self, func: Callable[Concatenate[Image, P], Image], *args: P.args, **kwargs: P.kwargs) -> Image:
        """`image.pipe(f, x)` is `f(image, x)`: for steps of your own in a chain."""
        return func(self, *args, **kwargs)

    @contextmanager
    def imports(self) -> Iterator[None]:
        """For imports at the top of a module that only the image can satisfy: here, a missing package is passed over.
        In a sandbox it is an error as always."""
        try:
            yield
        except ImportError:
            if os.environ.get(_IN_SANDBOX):
                raise

    def _with(self, name: Any, *arguments: Any) -> Image:
        return Image((*self._steps, (name, arguments)), self._late)

    def _build(self, name: Any, *arguments: Any) -> Image:
        if self._late:
            raise InvalidError(
                "A step that runs something cannot follow local files that were added without copy=True.",
                why="Such files come last, so that changing them runs nothing again.",
                fix="Add the files after all other steps, or with copy=True.",
            )
        return self._with(name, *arguments)

    def _add(self, copy: bool, name: Any, *arguments: Any) -> Image:
        return self._build(name, *arguments) if copy else Image(self._steps, (*self._late, (name, arguments)))

    def _definition(self, files: tuple[tuple[str, str], ...] = ()) -> ImageDefinition:
        """All steps, and a function's own source as the last one. Raises `InvalidError` for files that do not fit."""
        return self._plan(files)[0]

    def _plan(
        self, files: tuple[tuple[str, str], ...] = (), places: tuple[str, ...] = ()
    ) -> tuple[ImageDefinition, dict[int, dict[str, str]]]:
        """As `_definition`, which names secrets, and their values by the number of the step. At `places` volumes are
        to be mounted."""
        from potluck_images import definition

        steps, secrets = [], {}
        for number, (name, arguments) in enumerate(_resolved((*self._steps, *self._late))):
            found = {name: value for each in arguments if isinstance(each, Secret) for name, value in values(each)}
            if found:
                secrets[number] = found
            named = (tuple(found) if isinstance(each, Secret) else each for each in arguments)
            steps.append(getattr(definition, name)(*named))
        if files:
            steps.append(definition.Source(files))
        if places:
            steps.append(definition.Places(places))
        return definition.ImageDefinition(tuple(steps)), secrets

    def __repr__(self) -> str:
        names = [str(getattr(name, "__name__", name)) for name, _ in (*self._steps, *self._late)]
        return f"Image({', '.join(names)})"


def _resolved(steps: Sequence[_Step]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    for name, arguments in steps:
        if isinstance(name, str):
            yield name, arguments
        else:
            yield from _resolved(name(*arguments))


def _text(path: str | Path | None) -> str:
    return "" if path is None else os.path.abspath(path)


# What is read when the image is about to be built.


def _folder(local: str, target: str, ignore: Ignore) -> list[_Step]:
    from potluck import image_files

    return [("AddFiles", (target, local, image_files.patterns(local, ignore)))]


def _module(name: str, ignore: Ignore | None) -> list[_Step]:
    from potluck import image_files

    return [("AddFiles", step) for step in image_files.module_files(name, ignore)]


def _function(
    raw: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], rest: tuple[Any, ...]
) -> list[_Step]:
    from potluck import image_files

    return [("RunFunction", (raw.__name__, image_files.call(raw, args, kwargs), *rest))]


def _dockerfile(path: str, context: str, options: dict[str, Any]) -> list[_Step]:
    from potluck import dockerfile

    return dockerfile.steps_of_file(path, context, options)


def _docker_lines(text: str, context: str, options: dict[str, Any]) -> list[_Step]:
    from potluck import dockerfile

    return dockerfile.steps(text, context, options)
