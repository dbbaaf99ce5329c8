"""What a provider does when its owner wants the machine: nothing new begins, what runs is told that its grace began,
and ends with it. Part of the provider's core.

Whoever sits at a machine may use it: its own functions are left alone where the owner did not stop all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from potluck.wire.lease import InputDone
from potluck.wire.worker import InputRaised, InputRefused, InputSucceeded
from potluck_node.core import ends
from potluck_node.core import provider_events as ev
from potluck_node.core.gpu_room import GpuRoom
from potluck_node.core.pools import Item, Lease, Pool, Worker
from potluck_node.core.staff import Staff

# How those end who were told to: what Python raises for the signal, `sys.exit()`, and inputs beside others.
INTERRUPTED = ("KeyboardInterrupt", "SystemExit", "InputCancelled", "CancelledError")


class Yielding:
    """`us` is the node's own id; `leave` ends a lease; `abort` a worker, and what it runs may run elsewhere; `rescale`
    has a pool keep as many workers as its callers want."""

    def __init__(
        self, us: str, gpus: GpuRoom, staff: Staff, leases: Mapping[str, Lease], act: Callable[[ev.Action], None],
        leave: Callable[[str, str, int], None], abort: Callable[[Pool, Worker, str, int], None],
        rescale: Callable[[Pool], None],
    ) -> None:  # fmt: skip
        self._us, self._gpus, self._staff, self._leases, self._act = us, gpus, staff, leases, act
        self._leave, self._abort, self._rescale = leave, abort, rescale
        self.paused, self.own = "", True
        staff.stopped = self.stops

    def stops(self, caller: str) -> str:
        """Why nothing new begins for a caller, or ""."""
        return self.paused if self.own or caller != self._us else ""

    # The whole machine

    def on_paused(self, event: ev.Paused, now_us: int) -> None:
        """No new work; `now` also ends what runs."""
        self._set(event.reason, event.own)
        if event.now:
            pools = [pool for pool in self._staff.pools.values() if self.stops(pool.caller)]
            for lease in sorted(name for name, each in self._leases.items() if self.stops(each.caller)):
                self._leave(lease, event.reason, now_us)
            for pool in pools:
                self._staff.end(pool, event.reason)

    def on_resumed(self, _event: ev.Resumed, now_us: int) -> None:
        self._set("", True)
        self.on_spared(ev.GraceSpared(), now_us)

    def on_spared(self, _event: ev.GraceSpared, _now_us: int) -> None:
        """Those may go on whose GPUs are lent."""
        holds = self._gpus.desk.holders()
        for pool in self._staff.pools.values():
            for worker in pool.workers.values():
                hold = holds.get(worker.name)
                if worker.warned and not (hold and self._gpus.desk.why_blocked(hold)):
                    self._calm(pool, worker)

    def on_grace(self, event: ev.GraceBegan, _now_us: int) -> None:
        """What runs has so long. Workers that do nothing may leave at once."""
        for pool in self._staff.pools.values():
            for worker in pool.staying() if event.own or pool.caller != self._us else ():
                self._warn(pool, worker, event.reason, event.grace_us)

    def _set(self, reason: str, own: bool) -> None:
        self.paused, self.own = reason, own
        for pool in self._staff.pools.values():
            self._rescale(pool)
        self._act(ev.OfferChanged())

    def part(self, now_us: int) -> None:
        """End the leases that run nothing and may begin nothing: what is queued for them may run elsewhere."""
        if not self.paused and not self._gpus.desk.blocked:
            return
        for pool in list(self._staff.pools.values()):
            why = self.stops(pool.caller) or self._stranded(pool)
            running = {item.lease for _, _, item in pool.running()} if why else set()
            for lease in sorted(pool.leases - running) if why else ():
                self._leave(lease, why, now_us)

    def _stranded(self, pool: Pool) -> str:
        """Why nothing of a pool can run here for now, though its leases wait for that: its GPUs are held back."""
        wants = pool.spec.resources.gpu
        if not wants or not pool.leases or pool.staying() or self._staff.room.possible(pool.spec):
            return ""
        return self._gpus.desk.why_held(wants)

    # GPUs

    def on_gpus_seen(self, event: ev.GpusSeen, now_us: int) -> None:
        """What the machine has now. What runs on one that is lost ends."""
        before = self._offered()
        for holder, why in self._gpus.desk.seen(event.gpus).items():
            pool, worker = self._found(holder)
            if pool and worker:
                self._abort(pool, worker, why, now_us)
        if before != self._offered():
            self._act(ev.OfferChanged())

    def on_gpus_blocked(self, event: ev.GpusBlocked, now_us: int) -> None:
        """What runs on those that are held back has its grace, or has had it."""
        before, desk = self._offered(), self._gpus.desk
        desk.block(dict(event.states))
        for holder, hold in desk.holders().items():
            pool, worker = self._found(holder)
            if pool is None or worker is None or pool.caller == self._us:
                continue
            why = desk.why_blocked(hold)
            if any(hold.has(uuid) for uuid in event.end):
                worker.warned = worker.warned or why
                # Its leases first, if nothing of them can run here: inputs are not to come back for that.
                for lease in sorted(pool.leases) if self._stranded(pool) else ():
                    self._leave(lease, why, now_us)
                self._abort(pool, worker, why, now_us)
            elif why:
                self._warn(pool, worker, why, event.grace_us)
            elif worker.warned and not self.stops(pool.caller):
                self._calm(pool, worker)
        if before != self._offered():
            self._act(ev.OfferChanged())

    def _found(self, holder: str) -> tuple[Pool | None, Worker | None]:
        pool = self._staff.pools.get(self._gpus.pool_of(holder))
        worker = pool.workers.get(holder) if pool else None
        return pool, worker if worker and not worker.killed else None

    def _offered(self) -> list[tuple[str, str]]:
        return [(gpu.uuid, gpu.state) for gpu in self._gpus.desk.offers()]

    # Workers

    def _warn(self, pool: Pool, worker: Worker, why: str, grace_us: int) -> None:
        if worker.idle:
            self._staff.retire(pool, worker)
        elif not worker.warned:
            worker.warned = why
            self._act(ev.WarnWorker(pool.name, worker.name, grace_us))

    def _calm(self, pool: Pool, worker: Worker) -> None:
        worker.warned = ""
        self._act(ev.CalmWorker(pool.name, worker.name))

    def rest(self, pool: Pool, worker: Worker) -> None:
        """It has nothing to do: one that was told to end does."""
        if worker.warned and not worker.items and not worker.leaving and not worker.killed:
            self._staff.retire(pool, worker)


def as_done(worker: Worker, item: Item, outcome: InputSucceeded | InputRaised | InputRefused) -> InputDone:
    """A worker's answer as the caller gets it: what ended because it was told to may run elsewhere."""
    if worker.warned and isinstance(outcome, InputRaised) and _name(outcome) in INTERRUPTED:
        return ends.lost(item, worker.warned, yielded=True)
    return ends.as_done(item, outcome)


def _name(outcome: InputRaised) -> str:
    return outcome.exception.type_name.rpartition(".")[2]


def died(worker: Worker, item: Item, reason: str, alone: bool) -> InputDone:
    """The same of one that is gone."""
    return ends.lost(item, worker.warned, yielded=True) if worker.warned else ends.died(item, reason, alone)
