"""What is free, what would make room, and who has had less than others. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from potluck.gpus import parse_gpu
from potluck.wire import FunctionSpec
from potluck_node.core.gpus import GpuDesk
from potluck_node.core.pools import Capacity, Pool, Worker

# A caller gives up a worker at once to one that waits if that one then has no more than it keeps. Where that cannot be,
# as with a single worker, they take turns of this length: starting a sandbox costs a hundredth of it.
FAIR_GAP, TURN_US = 2, 5_000_000
# The whole of a share, in thousandths. Who has used that gives way to all who have not.
ALL = 1000


# More workers than any machine has.
NO_CAP = 1 << 30


class Cap(NamedTuple):
    """What some callers together may have at once: CPU in thousandths, and GPUs."""

    name: str
    callers: frozenset[str]
    cpu_milli: int
    gpus: int


class Room:
    """Looks at the pools of a node, which it does not change."""

    def __init__(self, capacity: Capacity, pools: Mapping[str, Pool], desk: GpuDesk) -> None:
        self._capacity, self._pools, self._desk = capacity, pools, desk
        # How much of its share a caller has used, in thousandths: from 1000 on it runs behind others.
        self.share: Callable[[str], int] = lambda caller: 0
        # What bounds a caller, beside all that is here.
        self.caps: Callable[[str], list[Cap]] = lambda caller: []
        # (CPU thousandths, MiB) that workers of other nodes on this machine have.
        self.others = (0, 0)

    def free(self) -> tuple[int, int]:
        """(CPU thousandths, MiB) that are not reserved by a worker. One that waits for calls of its own lends its CPU
        to others, so that the first is negative when it goes on while the others' workers are kept idle."""
        cpu, memory = self.reserved()
        return self._capacity.cpu_milli - self.others[0] - cpu, self._capacity.memory_mib - self.others[1] - memory

    def reserved(self) -> tuple[int, int]:
        """(CPU thousandths, MiB) that our own workers have."""
        workers = [(pool.spec.resources, worker) for pool in self._pools.values() for worker in pool.workers.values()]
        cpu = sum(each.cpu_milli for each, worker in workers if not worker.waits)
        return cpu, sum(each.memory_mib for each, _ in workers)

    def queued(self) -> int:
        """Inputs that were taken and wait for a worker."""
        return sum(len(pool.queue) for pool in self._pools.values())

    def lends(self) -> bool:
        """Whether CPU of one worker is with another, or was and is reserved twice."""
        workers = [worker for pool in self._pools.values() for worker in pool.workers.values()]
        return any(worker.asks for worker in workers) or self.free()[0] < 0

    def why_held(self) -> str:
        """What is not to be had though nobody uses it, in words."""
        count = sum(worker.waits for pool in self._pools.values() for worker in pool.workers.values())
        return f"memory and GPUs are held by workers that wait for calls of their own: {count}" if count else ""

    def may_wake(self, spec: FunctionSpec) -> bool:
        """Whether there is CPU for one more worker that does something."""
        workers = [(pool.spec.resources, worker) for pool in self._pools.values() for worker in pool.workers.values()]
        used = sum(each.cpu_milli for each, worker in workers if not worker.asleep)
        return used + spec.resources.cpu_milli <= self._capacity.cpu_milli - self.others[0]

    def idle(self) -> tuple[int, int]:
        """(CPU thousandths, MiB) held by warm workers that do nothing and would make room."""
        idle = [pool.spec.resources for pool, _ in self._idle()]
        return sum(each.cpu_milli for each in idle), sum(each.memory_mib for each in idle)

    def idle_workers(self) -> set[str]:
        """Warm workers that do nothing."""
        return {worker.name for _, worker in self._idle()}

    def _idle(self) -> list[tuple[Pool, Worker]]:
        pools = self._pools.values()
        return [(pool, worker) for pool in pools for worker in pool.workers.values() if worker.idle]

    def workers_max(self, spec: FunctionSpec) -> int:
        """The most workers of this function that could ever run here at once."""
        need = spec.resources
        by_cpu = self._capacity.cpu_milli // max(1, need.cpu_milli)
        room = max(0, min(by_cpu, self._capacity.memory_mib // max(1, need.memory_mib)))
        return min(room, self._desk.workers_max(need.gpu)) if need.gpu and room else room

    def possible(self, spec: FunctionSpec) -> int:
        """Workers of this size that fit into what is free or idle."""
        free, idle, need = self.free(), self.idle(), spec.resources
        by_cpu = (free[0] + idle[0]) // max(1, need.cpu_milli)
        room = max(0, min(by_cpu, (free[1] + idle[1]) // max(1, need.memory_mib)))
        return min(room, self._desk.workers_now(need.gpu, self.idle_workers())) if need.gpu and room else room

    def fits(self, spec: FunctionSpec) -> bool:
        """Whether one more worker fits into what is free."""
        cpu, memory = self.free()
        return cpu >= spec.resources.cpu_milli and memory >= spec.resources.memory_mib

    def allowed(self, caller: str, spec: FunctionSpec) -> tuple[int, str]:
        """How many further workers of this size a caller may have where there is room, and why not more."""
        least, why = NO_CAP, ""
        for cap in self.caps(caller):
            pools = [pool for pool in self._pools.values() if pool.caller in cap.callers]
            cpu = sum(pool.spec.resources.cpu_milli * len(pool.workers) for pool in pools)
            holders, names = self._desk.holders(), {worker for pool in pools for worker in pool.workers}
            gpus = sum(len(hold.gpus) for name, hold in holders.items() if name in names)
            found = (cap.cpu_milli - cpu) // max(1, spec.resources.cpu_milli)
            if wanted := max((parse_gpu(text).amount for text in spec.resources.gpu), default=0):
                found = min(found, (cap.gpus - gpus) // wanted)
            if found < least:
                least, why = max(0, found), f"{cap.name} may have no more than {cpu / 1000:g} CPUs and {gpus} GPUs here"
        return least, why

    def helps(self, worker: Worker, wanting: FunctionSpec) -> bool:
        """Whether the end of `worker` brings a worker of `wanting` nearer."""
        hold = self._desk.holders().get(worker.name)
        return not self.fits(wanting) or (hold is not None and hold.helps(wanting.resources.gpu))

    # Fairness between callers

    def counts(self) -> Counter[str]:
        """Workers of each caller that stay."""
        return Counter(pool.caller for pool in self._pools.values() for _ in pool.staying())

    def due(self, caller: str, spec: FunctionSpec, now_us: int) -> int:
        """1 when someone else would soon give up a worker for this caller, else 0."""
        counts = self.counts()
        return int(
            any(
                self._gap(pool, caller, counts) >= (1 if _takes_turns(pool, now_us) else FAIR_GAP)
                and self._could_give(pool, spec)
                for pool in self._pools.values()
            )
        )

    def owes(self, pool: Pool, worker: Worker, waiting: Collection[Pool], now_us: int) -> bool:
        """Whether `pool` should give up this free worker, for a pool of a caller that has fewer."""
        counts, gap = self.counts(), 1 if worker.up_us + TURN_US <= now_us else FAIR_GAP
        return any(
            self._gap(pool, each.caller, counts) >= gap and self._could_give(pool, each.spec) for each in waiting
        )

    def _gap(self, pool: Pool, caller: str, counts: Counter[str]) -> int:
        if pool.caller == caller or not pool.staying():
            return 0
        has, wants = self.share(pool.caller) // ALL, self.share(caller) // ALL
        if has != wants:
            return FAIR_GAP if has > wants else 0
        return counts[pool.caller] - counts[caller]

    def _could_give(self, pool: Pool, spec: FunctionSpec) -> bool:
        need, has, free = spec.resources, pool.spec.resources, self.free()
        return (
            free[0] + has.cpu_milli >= need.cpu_milli
            and free[1] + has.memory_mib >= need.memory_mib
            and (not need.gpu or any(self._helps_gpu(worker, spec) for worker in pool.staying()))
        )

    def _helps_gpu(self, worker: Worker, spec: FunctionSpec) -> bool:
        hold = self._desk.holders().get(worker.name)
        return hold is not None and hold.helps(spec.resources.gpu)


def _takes_turns(pool: Pool, now_us: int) -> bool:
    """Whether its workers have inputs short enough for another to wait for."""
    return any(worker.number > 1 and now_us - worker.since_us < TURN_US for worker in pool.staying())
