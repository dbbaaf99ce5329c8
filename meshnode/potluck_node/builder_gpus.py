"""GPUs for build steps: lent for as long as a command runs, by whoever watches the machine's GPUs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace

from potluck.errors import RefusedError
from potluck_images.errors import ImageBuildError
from potluck_images.workshop import StepCommand
from potluck_node.devices.interface import Binding
from potluck_node.sandbox.interface import device_place

# Requests as in `@app.function(gpu=…)` → what a sandbox gets, for as long as the block lasts. Called in a thread; may
# raise `RefusedError`.
Lend = Callable[[tuple[str, ...]], contextlib.AbstractContextManager[Binding]]

_LIBRARIES = "LD_LIBRARY_PATH"


@contextlib.contextmanager
def lent(lend: Lend | None, gpu: tuple[str, ...]) -> Iterator[Binding]:
    """Raises `ImageBuildError` when there is no such GPU, before anything runs."""
    if not gpu:
        yield Binding()
        return
    with contextlib.ExitStack() as borrowed:
        try:
            if lend is None:
                raise RefusedError("No GPU is to be had here.")
            binding = borrowed.enter_context(lend(gpu))
        except RefusedError as error:
            raise _none(error) from None
        yield binding


def _none(error: RefusedError) -> ImageBuildError:
    return ImageBuildError(
        "This node has no GPU to lend to a build step.",
        why=error.why or error.what,
        fix="Build on one that has: potluck run --build-on PEER. `potluck status` shows who has which.",
    )


def with_gpus(command: StepCommand, binding: Binding) -> tuple[StepCommand, list[str]]:
    """The command with the driver's files and variables, and bwrap's options for the devices."""
    paths = [paths[_LIBRARIES] for paths in (binding.env, command.env) if _LIBRARIES in paths]
    env = {**command.env, **binding.env, **({_LIBRARIES: ":".join(paths)} if paths else {})}
    devices = [word for path in binding.devices for word in ("--dev-bind", str(path), device_place(path))]
    return replace(command, env=env, binds=(*command.binds, *binding.binds)), devices
