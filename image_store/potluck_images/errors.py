"""Every error of the image store: what happened, why, and what to do next.

`kind` is the same word as in `potluck.errors`, so that the node and the SDK can hand the error on under its name there.
"""

from __future__ import annotations

from typing import ClassVar


class ImageStoreError(Exception):
    """The root. `what` says what happened, `why` the cause as far as it is known, `fix` what to do next."""

    kind: ClassVar[str] = "image"

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.fix = what, why, fix

    def __str__(self) -> str:
        parts = [self.what]
        if self.why:
            parts.append(f"  why: {self.why}")
        if self.fix:
            parts.append(f"  fix: {self.fix}")
        return "\n".join(parts)


class ImageError(ImageStoreError):
    """An image, layer or manifest is unusable."""

    kind = "image"


class ImageBuildError(ImageStoreError):
    """A step of the image failed; `why` has its last lines."""

    kind = "image-build"


class PythonVersionError(ImageStoreError):
    """The interpreter on this machine is not the one that the definition names."""

    kind = "python-version"


class StoreFullError(ImageStoreError):
    """The disk, or the cap on the store, is full. What was stored before stays whole."""

    kind = "store-full"


class CorruptDataError(ImageStoreError):
    """Stored or received bytes are not what their digest says."""

    kind = "corrupt-data"


class NotFoundError(ImageStoreError):
    """The store does not hold a chunk."""

    kind = "not-found"
