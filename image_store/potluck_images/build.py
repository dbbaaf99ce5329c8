"""Building: the steps of a definition, each on top of those before it, become layers in a store and an image id.

The same definition and the same inputs give the same id, on any machine. Results of steps are kept by a digest of what
they depend on, which includes all layers below: a change to one step makes the steps after it run again. The user's own
files are read anew each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec

from potluck_images import command_steps, python_steps, registry_step
from potluck_images.definition import (
    AddFiles,
    AnyStep,
    AptInstall,
    Cmd,
    DebianSlim,
    Entrypoint,
    Environment,
    Existing,
    ImageDefinition,
    LocalPython,
    PipInstall,
    Places,
    Registry,
    Run,
    RunFunction,
    Scratch,
    Shell,
    Source,
    Workdir,
)
from potluck_images.draft import Draft
from potluck_images.errors import ImageBuildError
from potluck_images.existing_step import add_existing_image
from potluck_images.layers import Progress
from potluck_images.packfile import clearer
from potluck_images.source import added_tree, source_tree
from potluck_images.store import ChunkStore
from potluck_images.tree import Folder, Tree
from potluck_images.workshop import Workshop


def build(
    definition: ImageDefinition,
    store: ChunkStore,
    cache_dir: Path,
    progress: Progress = lambda stage, text: None,
    workshop: Workshop | None = None,
    secrets: Mapping[int, Mapping[str, str]] = MappingProxyType({}),
) -> str:
    """Build the image and return its id (hex). Blocking: to be called in a thread; `progress` cancels by raising.

    Steps that run commands need a `workshop`; `secrets` has the values of those that steps name, by the step's number.
    Temporary files lie in `cache_dir` and are removed in any case. Raises
    `ImageBuildError`, `PythonVersionError`, `ImageError`, `StoreFullError`.
    """
    try:
        draft = Draft(store, cache_dir.absolute(), progress, workshop)
        try:
            for number, step in enumerate(definition.steps):
                draft.secrets = _secrets(step, secrets.get(number, {}))
                _add(draft, step)
            return draft.image()
        finally:
            draft.close()
    except OSError as error:
        raise clearer(error) from None


def _secrets(step: AnyStep, given: Mapping[str, str]) -> Mapping[str, str]:
    """The values that a step named. Raises `ImageBuildError` when one was not given."""
    names = getattr(step, "secrets", ())
    if missing := [name for name in names if name not in given]:
        raise ImageBuildError(f"A build step needs secrets that were not given: {', '.join(missing)}.")
    return {name: given[name] for name in names}


def _add(draft: Draft, step: AnyStep) -> None:
    match step:
        case LocalPython():
            python_steps.add_local_python(draft, step)
        case DebianSlim():
            command_steps.add_debian(draft, step)
        case Existing():
            add_existing_image(draft, step)
        case Registry():
            registry_step.add_registry_image(draft, step)
        case Run():
            command_steps.run_commands(draft, step)
        case RunFunction():
            command_steps.run_function(draft, step)
        case AptInstall():
            command_steps.install_debian_packages(draft, step)
        case PipInstall():
            _add_packages(draft, step)
        case Source() | AddFiles():
            _add_files(draft, step)
        case Places():
            _add_places(draft, step)
        case _:
            _set(draft, step)


def _set(draft: Draft, step: AnyStep) -> None:
    """Steps that only change how programs start."""
    match step:
        case Scratch():
            draft.begin("from_scratch")
        case Environment():
            draft.set_env(dict(step.variables))
        case Workdir():
            draft.set_workdir(step.path)
        case Shell():
            draft.shell = step.words
        case Entrypoint():
            draft.change(entrypoint=step.words)
        case Cmd():
            draft.change(cmd=step.words)


def _add_packages(draft: Draft, step: PipInstall) -> None:
    if not (step.packages or step.requirements or step.project or step.locked):
        return
    if draft.python is None:
        raise ImageBuildError(
            "pip_install needs a Python below it.", fix="Begin the image with local_python() or debian_slim()."
        )
    draft.progress("pip", ", ".join(step.packages) or "locked packages")
    if draft.foreign:
        command_steps.install_python_packages(draft, step)
    else:
        python_steps.install_wheels(draft, step)


def _add_files(draft: Draft, step: Source | AddFiles) -> None:
    """Read anew each time."""
    if isinstance(step, AddFiles):
        draft.progress("files", step.path)
        tree = added_tree(msgspec.structs.replace(step, path=draft.real(step.path)))
    else:
        draft.progress("source", ", ".join(path for path, _ in step.files))
        tree = source_tree(Source(tuple((draft.real(path), local) for path, local in step.files)))
    draft.push(draft.cache.pack("files", tree))


def _add_places(draft: Draft, step: Places) -> None:
    tree = Tree()
    for path in step.paths:
        tree.put(draft.real(path).strip("/"), Folder())
    draft.push(draft.cache.pack("files", tree))
