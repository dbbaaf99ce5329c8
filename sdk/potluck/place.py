"""Where a program runs: here, or in a worker's sandbox."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

# Told by an environment variable, as `potluck_node.sandbox.interface.MARKER`.
IN_SANDBOX = "POTLUCK_SANDBOX"


def is_local() -> bool:
    """Whether this is the caller's own program, and not a function on the mesh."""
    return not os.environ.get(IN_SANDBOX)


@contextmanager
def enable_output() -> Iterator[None]:
    """Changes nothing: what functions print is always shown, and progress where standard error is a terminal. Here so
    that programs for Modal run as they are."""
    yield
