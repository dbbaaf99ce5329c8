"""The owner's caps on upload and download: a token bucket that says how long to wait. Pure."""

from __future__ import annotations

# Bytes may come in bursts of so much time; smoother would cost a timer for each chunk.
BURST_US = 250_000


class TokenBucket:
    """`bytes_per_s` is the cap; 0 means none. (The generic cell rate algorithm, ITU-T I.371.)"""

    def __init__(self, bytes_per_s: int) -> None:
        self._rate = bytes_per_s
        self._paid_until_us = 0

    def wait_us(self, amount: int, now_us: int) -> int:
        """Book `amount` bytes; returns how many microseconds to wait before moving them."""
        if not self._rate:
            return 0
        wait = max(0, self._paid_until_us - BURST_US - now_us)
        self._paid_until_us = max(self._paid_until_us, now_us) + amount * 1_000_000 // self._rate
        return wait
