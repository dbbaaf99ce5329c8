"""What `potluck doctor` prints: one finding for each thing that a machine has or lacks."""

from __future__ import annotations

from typing import Literal

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """`state` is "good", "weak" (works, with less) or "missing" (something cannot be done at all).

    `says` is what was found; `means` what follows for the owner or callers; `fix` the one command that improves it.
    """

    about: str
    state: Literal["good", "weak", "missing"]
    says: str
    means: str = ""
    fix: str = ""
