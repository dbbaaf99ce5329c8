"""How far generators may run ahead of whoever takes their items."""

from __future__ import annotations

import _thread
from _collections import deque  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]

from .codec import ITEM_BYTES_AHEAD_MAX, ITEMS_AHEAD_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class _Window:
    """`sizes` are those of the items that were sent and not taken."""

    def __init__(self, bytes_max: int) -> None:
        self.sizes: Any = deque()
        self.bytes = self.taken = 0
        self._bytes_max = bytes_max

    def full(self, size: int) -> bool:
        """One item always has room, however large."""
        many = len(self.sizes) >= ITEMS_AHEAD_MAX or self.bytes + size > self._bytes_max
        return many and bool(self.sizes)

    def add(self, size: int) -> None:
        self.sizes.append(size)
        self.bytes += size

    def take(self, items: int) -> None:
        while self.taken < items and self.sizes:
            self.bytes -= self.sizes.popleft()
            self.taken += 1


class Windows:
    """One for each input. `wait` is called while one is full, and returns when `taken` may have made room."""

    def __init__(self, wait: Callable[[], None], bytes_max: int = ITEM_BYTES_AHEAD_MAX) -> None:
        self._wait, self._bytes_max = wait, bytes_max
        self._lock = _thread.allocate_lock()
        self._windows: dict[int, _Window] = {}

    def full(self, number: int, size: int) -> bool:
        """Whether an item of so many bytes has to wait."""
        with self._lock:
            return self._windows.setdefault(number, _Window(self._bytes_max)).full(size)

    def send(self, number: int, size: int) -> None:
        """Wait until an item may be sent, and count it."""
        while self.full(number, size):
            self._wait()
        with self._lock:
            self._windows[number].add(size)

    def taken(self, number: int, items: int) -> None:
        """So many items of an input were taken."""
        with self._lock:
            if number in self._windows:
                self._windows[number].take(items)

    def end(self, number: int) -> None:
        """It yields no more."""
        with self._lock:
            self._windows.pop(number, None)
