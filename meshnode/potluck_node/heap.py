"""How the C library keeps memory that was freed, mallopt(3)."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3

# A frame of a lane has up to 1 MiB and lives for a millisecond. Left to itself glibc gives its pages back and takes new
# ones each time, which doubled what receiving costs. Bytes: what is larger is a mapping of its own; as much is kept.
OWN_MAPPING_BYTES, KEPT_BYTES = 2 << 20, 16 << 20


def keep_heap() -> None:
    """For this process; nothing happens where the C library has no such choice."""
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, OWN_MAPPING_BYTES)
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
