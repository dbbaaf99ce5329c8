"""An image of the store as a base."""

from __future__ import annotations

from potluck_images.definition import Existing
from potluck_images.draft import Draft
from potluck_images.errors import CorruptDataError, ImageBuildError, NotFoundError, PythonVersionError
from potluck_images.image import get_config
from potluck_images.interpreter import find_interpreter
from potluck_images.python_steps import add_runtime


def add_existing_image(draft: Draft, step: Existing) -> None:
    """Raises `ImageBuildError` when it is not there, `PythonVersionError`."""
    draft.begin("from_id")
    try:
        config = get_config(draft.store, step.image)
    except (NotFoundError, CorruptDataError):
        raise ImageBuildError(
            f"The image {step.image[:12]} is not here.",
            why="snapshots are kept for their ttl, other images until their room is needed",
            fix=f"Get it from the mesh: potluck image pull {step.image}",
        ) from None
    minor = step.version.rpartition(".")[0]
    if config.python and not config.python_version.startswith(f"{minor}."):
        raise PythonVersionError(
            f"The image {step.image[:12]} has Python {config.python_version}, the caller runs {step.version}.",
            why="pickled functions and arguments only fit the same version",
            fix="Run the caller with the Python of the image.",
        )
    draft.config, draft.foreign = config, True
    if config.python:
        draft.python = find_interpreter(step.executable, step.version)
        add_runtime(draft, draft.python)
