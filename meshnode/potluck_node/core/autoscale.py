"""How many workers a function should have, and where. Pure.

The caller's core asks for them by the leases that it opens and by `ScaleWorkers`; the simulator drives the same code.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from potluck.wire import Scaling


@dataclass(frozen=True, slots=True)
class Demand:
    """Inputs that wait and that run; how long one runs, a worker takes to start, and two inputs are apart (0: unknown),
    in microseconds. `per_worker` inputs run at once in each of the `up` workers that there are. Nothing has moved for
    `stalled_us`."""

    queued: int
    running: int
    run_us: int
    start_us: int
    gap_us: int
    per_worker: int = 1
    up: int = 0
    stalled_us: int = 0

    @property
    def total(self) -> int:
        return self.queued + self.running


def wanted(demand: Demand, scaling: Scaling) -> int:
    """Workers to have: as many as pay for their start, within what the caller allows.

    A worker pays if its share of the work takes longer than its start. New inputs are counted on as they have come so
    far (Little's law: in service = arrival rate times service time). Where nothing moves, the figures are wrong and
    each input gets a worker.
    """
    needed = -(-demand.total // demand.per_worker)
    if demand.run_us and needed > demand.up and demand.stalled_us < demand.start_us:
        paid = -(-demand.total * demand.run_us // max(1, demand.start_us * demand.per_worker))
        coming = -(-demand.run_us // max(1, demand.gap_us * demand.per_worker)) if demand.gap_us else 0
        needed = min(needed, max(demand.up, paid, coming, 1))
    if demand.total:
        needed += scaling.buffer_containers
    needed = max(needed, scaling.min_containers)
    return min(needed, scaling.max_containers) if scaling.max_containers else needed


def kept(demand: Demand, scaling: Scaling) -> int:
    """Workers to hold up though they have nothing to do: the least that there may be, and those that stand by."""
    busy = -(-demand.running // demand.per_worker)
    buffered = busy + scaling.buffer_containers if demand.total and scaling.buffer_containers else 0
    held = max(scaling.min_containers, buffered)
    return min(held, scaling.max_containers) if scaling.max_containers else held


@dataclass(frozen=True, slots=True)
class Place:
    """A lease that could have `room` workers and has `busy` ones, or some held up. Lower `rank` is better."""

    lease: str
    room: int
    busy: int
    rank: int


def allot(workers: int, places: Iterable[Place]) -> dict[str, int]:
    """Workers by lease: first where some are busy, then the best places first."""
    found: dict[str, int] = {}
    ordered = sorted(places, key=lambda place: (-min(place.busy, 1), place.rank, place.lease))
    for place in ordered:
        found[place.lease] = min(place.room, place.busy, workers)
        workers -= found[place.lease]
    for place in ordered:
        more = min(place.room - found[place.lease], workers)
        found[place.lease] += more
        workers -= more
    return found
