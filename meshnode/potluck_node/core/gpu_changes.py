"""What becomes of workers whose GPUs are lost, or wanted back by their owner. Part of the provider's core."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from potluck_node.core import provider_events as ev
from potluck_node.core.gpu_room import GpuRoom
from potluck_node.core.pools import Pool, Worker
from potluck_node.core.room import Room


class GpuChanges:
    """`us` is the node's own id; `act` takes an action; `abort` ends a worker, and what it runs may run elsewhere;
    `leave` ends a lease."""

    def __init__(
        self, us: str, gpus: GpuRoom, pools: Mapping[str, Pool], room: Room, act: Callable[[ev.Action], None],
        abort: Callable[[Pool, Worker, str, int], None], leave: Callable[[str, str, int], None],
    ) -> None:  # fmt: skip
        self._us, self._gpus, self._pools, self._room = us, gpus, pools, room
        self._act, self._abort, self._leave = act, abort, leave

    def seen(self, event: ev.GpusSeen, now_us: int) -> None:
        """What the machine has now."""
        before = self._offered()
        for holder, why in self._gpus.desk.seen(event.gpus).items():
            pool, worker = self._found(holder)
            if pool and worker:
                self._abort(pool, worker, why, now_us)
        self._tell(before)

    def blocked(self, event: ev.GpusBlocked, now_us: int) -> None:
        """What the owner does not lend now. Own functions go on: whoever sits at a machine may use it."""
        before = self._offered()
        for holder, why in self._gpus.desk.block(dict(event.states), event.end).items():
            pool, worker = self._found(holder)
            if pool and worker and pool.caller != self._us:
                self._abort(pool, worker, why, now_us)
                if not pool.staying() and not self._room.possible(pool.spec):
                    # Nothing of it can run here for now: its inputs are not to wait for that.
                    for lease in sorted(pool.leases):
                        self._leave(lease, why, now_us)
        self._tell(before)

    def _found(self, holder: str) -> tuple[Pool | None, Worker | None]:
        pool = self._pools.get(self._gpus.pool_of(holder))
        worker = pool.workers.get(holder) if pool else None
        return pool, worker if worker and not worker.killed else None

    def _offered(self) -> list[tuple[str, str]]:
        return [(gpu.uuid, gpu.state) for gpu in self._gpus.desk.offers()]

    def _tell(self, before: list[tuple[str, str]]) -> None:
        if before != self._offered():
            self._act(ev.OfferChanged())
