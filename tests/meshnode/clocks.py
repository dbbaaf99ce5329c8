import trio


class TrioClock:
    """A node's clock on trio's own time, so that the autojump clock moves both."""

    def now_us(self) -> int:
        return round(trio.current_time() * 1e6)


class HandClock:
    """Stands still until it is moved; the year is any."""

    def __init__(self) -> None:
        self._now_us = 1_800_000_000_000_000

    def now_us(self) -> int:
        return self._now_us

    def advance(self, microseconds: int) -> None:
        self._now_us += microseconds
