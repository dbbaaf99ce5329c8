"""How much a worker may print, and how fast."""

from __future__ import annotations

import trio

from potluck.errors import ResourceExceededError
from potluck.wire import Failure
from potluck_node.core.rate import TokenBucket

# Nobody reads more of one input; data belongs into results, volumes and files. Bytes.
OUTPUT_BYTES_MAX = 256 << 20
# Faster than any terminal shows it, and slow enough that a flood does not fill a network. Bytes a second.
OUTPUT_RATE = 16 << 20


class Printed:
    """The output of one worker. `wait_s` is how long to hold up what was added last."""

    def __init__(self) -> None:
        self.wait_s = 0.0
        self._bytes = 0
        self._bucket = TokenBucket(OUTPUT_RATE)

    def reset(self) -> None:
        """An input has ended."""
        self._bytes = 0

    def add(self, size: int) -> Failure | None:
        """Count what was printed; returns why the worker is to end, if it is."""
        self._bytes += size
        self.wait_s = self._bucket.wait_us(size, round(trio.current_time() * 1e6)) / 1e6
        if self._bytes <= OUTPUT_BYTES_MAX:
            return None
        return Failure.of(
            ResourceExceededError(
                f"The worker printed more than {OUTPUT_BYTES_MAX >> 20} MiB for one input.",
                fix="Print less, or return the data.",
            )
        )
