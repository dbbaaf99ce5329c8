"""The provider's part in shared state: which worker asked what through which lease. Pure bookkeeping.

A worker's requests have its own numbers; on a lease they get the provider's.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from potluck.wire.state import ASKS_MAX


class Origin(NamedTuple):
    """A request as its worker counts it."""

    pool: str
    worker: str
    number: int


class Passed(NamedTuple):
    """The same request on a lease."""

    lease: str
    number: int


class Relay:
    """Requests that were passed on and not answered yet."""

    def __init__(self) -> None:
        self._numbers = 0
        self._passed: dict[Origin, Passed] = {}
        self._origins: dict[Passed, Origin] = {}
        self._open: Counter[tuple[str, str]] = Counter()
        self._awaited: dict[Origin, bool] = {}

    def asked(self, origin: Origin, lease: str, waits: bool = False, streams: bool = False) -> Passed | None:
        """Under which number it goes on; None for what may not: too many at once, or a number that is taken."""
        if origin in self._passed or self._open[origin[:2]] >= ASKS_MAX:
            return None
        self._numbers += 1
        passed = self._passed[origin] = Passed(lease, self._numbers)
        self._origins[passed] = origin
        self._open[origin[:2]] += 1
        if waits:
            self._awaited[origin] = streams
        return passed

    def awaited(self, origin: Origin) -> bool | None:
        """None unless a worker did nothing until it was answered, else whether that `streams`; says so once."""
        return self._awaited.pop(origin, None)

    def told(self, passed: Passed) -> Origin | None:
        """Who gets the answer; None when nobody waits for it."""
        origin = self._origins.get(passed)
        if origin is not None:
            self._forget(origin)
        return origin

    def dropped(self, origin: Origin) -> Passed | None:
        """A worker waits no longer; what is to be dropped on the lease."""
        return self._forget(origin) if origin in self._passed else None

    def worker_gone(self, pool: str, worker: str) -> list[Passed]:
        """What a worker had asked, which is to be dropped."""
        gone = [origin for origin in self._passed if origin[:2] == (pool, worker)]
        for origin in gone:
            self._awaited.pop(origin, None)
        return [self._forget(origin) for origin in gone]

    def lease_gone(self, lease: str) -> list[Origin]:
        """Who will get no answer."""
        gone = [origin for origin, passed in self._passed.items() if passed.lease == lease]
        for origin in gone:
            self._forget(origin)
        return gone

    def _forget(self, origin: Origin) -> Passed:
        passed = self._passed.pop(origin)
        del self._origins[passed]
        self._open[origin[:2]] -= 1
        if not self._open[origin[:2]]:
            del self._open[origin[:2]]
        return passed
