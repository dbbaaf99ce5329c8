"""One clock for the node: Unix microseconds that never jump.

Anchored once and carried on by CLOCK_BOOTTIME, which counts through suspend and ignores steps of the wall clock; so
differences are true durations, and offers of a machine that slept are not an hour late.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def now_us(self) -> int:
        """Unix microseconds."""
        ...


class SystemClock:
    """`offset_us` shifts it, for tests of peers whose clock is wrong."""

    def __init__(self, offset_us: int = 0) -> None:
        self._anchor_us = time.time_ns() // 1000 - self._boot_us() + offset_us

    @staticmethod
    def _boot_us() -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000

    def now_us(self) -> int:
        return self._anchor_us + self._boot_us()
