"""Errors of the image store under their names in `potluck.errors`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from potluck.errors import Error, from_kind
from potluck_images.errors import ImageStoreError


@contextmanager
def own_errors() -> Iterator[None]:
    """Raises `potluck.errors.Error` for every `ImageStoreError` inside, alone or in a group."""
    try:
        yield
    except ImageStoreError as error:
        raise _own(error) from None
    except BaseExceptionGroup as group:
        found = group.subgroup(ImageStoreError)
        if found is None:
            raise
        raise _own(_first(found)) from None


def _own(error: ImageStoreError) -> Error:
    return from_kind(error.kind, error.what, why=error.why, fix=error.fix)


def _first(group: BaseExceptionGroup[ImageStoreError]) -> ImageStoreError:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
