"""Who waits where, first come first served: for items of a partition, or for room in one. Pure."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

PlaceT = TypeVar("PlaceT", bound=Hashable)


class Waiting(Generic[PlaceT]):
    """Waiters are numbers that the driver gives, each waiting in one place."""

    def __init__(self) -> None:
        # In the order in which they came; a dict keeps it.
        self._places: dict[PlaceT, dict[int, None]] = {}

    def wait(self, place: PlaceT, waiter: int) -> None:
        """Queue up; who waits there already keeps its turn."""
        self._places.setdefault(place, {}).setdefault(waiter)

    def leave(self, place: PlaceT, waiter: int) -> None:
        """Wait no longer; may be said twice."""
        there = self._places.get(place)
        if there is not None:
            there.pop(waiter, None)
            if not there:
                del self._places[place]

    def wake(self, place: PlaceT, count: int) -> list[int]:
        """So many may go on: those who have waited longest, who wait there no more."""
        there = list(self._places.get(place, ()))[:count]
        for waiter in there:
            self.leave(place, waiter)
        return there

    def wake_all(self, concerns: Callable[[PlaceT], bool]) -> list[int]:
        """All who wait in places that it concerns."""
        return [waiter for place in list(self._places) if concerns(place) for waiter in self.wake(place, sys.maxsize)]
