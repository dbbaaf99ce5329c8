"""Which input the code that runs is for: (its number, the id of its call, its place in there)."""

from __future__ import annotations

from _contextvars import ContextVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NOTHING = (0, "", 0)

# Threads that user code starts begin without it.
running: Any = ContextVar("potluck_input", default=NOTHING)
# What runs where that is unknown, if only one input can.
alone: tuple[int, str, int] = NOTHING


def get() -> tuple[int, str, int]:
    """Number 0 where it is not known."""
    found: tuple[int, str, int] = running.get()
    return found if found[0] else alone
