"""A base from an OCI registry, and the Python in it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from potluck_images import oci
from potluck_images.added_python import add_python
from potluck_images.bench import PATH, Bench
from potluck_images.definition import Registry
from potluck_images.draft import Draft
from potluck_images.errors import ImageBuildError, PythonVersionError
from potluck_images.interpreter import find_interpreter
from potluck_images.layers import Layer, Made
from potluck_images.local_python import RUNTIME, SITE
from potluck_images.process import Say
from potluck_images.python_steps import add_runtime
from potluck_images.tree import Tree

_ABOUT = (
    "import json, os, platform, sys; print(json.dumps([os.path.abspath(sys.executable), platform.python_version()]))"
)
_NO_PYTHON = "no python3"
_FIND = f"p=$(command -v python3) || {{ echo '{_NO_PYTHON}'; exit 0; }}; exec \"$p\" -c '{_ABOUT}'"


class _About(msgspec.Struct, frozen=True):
    """What the image's config says, besides its environment."""

    workdir: str
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    machine: str


def add_registry_image(draft: Draft, step: Registry) -> None:
    """Raises `ImageError` for what the registry does wrong, `ImageBuildError`, `PythonVersionError`."""
    draft.begin("from_registry")
    say = draft.say("registry")
    say(step.reference)
    draft.foreign, draft.force = True, draft.force or step.force
    draft.python = find_interpreter(step.executable, step.version)
    base = _pulled(draft, step, say)
    draft.push(base.ref)
    about = msgspec.json.decode(base.about, type=_About)
    draft.set_env(_environment(dict(base.env)))
    draft.change(entrypoint=about.entrypoint, cmd=about.cmd, machine=about.machine)
    draft.set_workdir(about.workdir)
    if step.add_python:
        add_python(draft, draft.python, say)
    else:
        _find_python(draft, step, say)
    add_runtime(draft, draft.python)


def _pulled(draft: Draft, step: Registry, say: Say) -> Layer:
    """As it was pulled first, unless the step says otherwise: the registry is not asked again for each call."""
    found = None if step.force else draft.cache.find("registry", [step.reference])
    if found:
        return found
    with draft.cache.folder() as work:
        pulled = oci.pull(step.reference, draft.store, work, say)
    (ref,) = pulled.layers
    about = _About(pulled.workdir, pulled.entrypoint, pulled.cmd, pulled.machine)
    layer = Layer(ref, tuple(pulled.env.items()), msgspec.json.encode(about).decode())
    draft.cache.keep("registry", [step.reference], layer)
    return layer


def _environment(env: dict[str, str]) -> dict[str, str]:
    return {
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        **env,
        "PATH": f"/{SITE}/bin:{env.get('PATH', PATH)}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": f"/app:/{SITE}:/{RUNTIME}",
    }


def _find_python(draft: Draft, step: Registry, say: Say) -> None:
    """Ask the image which Python it has."""
    told = draft.cache.get("python of", draft.state(), lambda work: _ask(draft, work)).about
    if told == _NO_PYTHON:
        raise ImageBuildError(
            f"{step.reference} has no python3.", fix=f'Add the caller\'s own: add_python="{_minor(step.version)}".'
        )
    path, version = json.loads(told)
    if _minor(version) != _minor(step.version):
        raise PythonVersionError(
            f"{step.reference} has Python {version}, the caller runs {step.version}.",
            why="pickled functions and arguments only fit the same version",
            fix=f'Run the caller with Python {_minor(version)}, or add its own: add_python="{_minor(step.version)}".',
        )
    say(f"Python {version}")
    draft.change(python=path, python_version=version)


def _ask(draft: Draft, work: Path) -> Made:
    with draft.root() as root:
        bench = Bench(draft.workshop(), root, work, dict(draft.config.env), "/")
        argv = ("/bin/sh", "-c", _FIND)
        told = bench.run(argv, lambda line: None, "Looking for Python", network=False)
    return Made(Tree(), about=told.lines[-1])


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
