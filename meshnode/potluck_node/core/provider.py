"""The provider core: admission, leases, running inputs, metering. Events in, actions out; no I/O, no clock.

A pool belongs to one caller and one function: see `staff`, which has the workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from potluck.errors import ExecutionError
from potluck.wire import Failure, FunctionSpec
from potluck.wire.lease import (
    CloseLease,
    InputDone,
    InputItem,
    InputStarted,
    LeaseGranted,
    LeaseReady,
    LeaseRefused,
    PiecesTaken,
)
from potluck.wire.web import AHEAD_BYTES_MAX, SOCKET_MESSAGE_BYTES_MAX
from potluck_node.core import ends
from potluck_node.core import provider_events as ev
from potluck_node.core.asks import Asks
from potluck_node.core.calls import AHEAD_MAX
from potluck_node.core.dealing import places
from potluck_node.core.gpu_room import GpuRoom
from potluck_node.core.meter import LeaseMeter, payload_digest
from potluck_node.core.pools import Capacity, Item, Lease, Pool, Worker
from potluck_node.core.sending import SendingAway
from potluck_node.core.staff import IDLE_US, RESUME_US, Staff, overdue_us
from potluck_node.core.vouching import Vouching
from potluck_node.core.yielding import Yielding, as_done, died

# A worker that dies this often before it took an input will not come up at all.
STARTS_MAX = 3
# A lease may have this many inputs with us beyond what its slots can hold ahead; more breaks the protocol.
INPUTS_SLACK = 64
UNSIGNED = "the caller does not sign vouchers"
# Bytes of one request's pieces that may wait for a worker: what it wants, and one WebSocket message beyond.
PIECE_BYTES_AHEAD_MAX = AHEAD_BYTES_MAX + SOCKET_MESSAGE_BYTES_MAX + 1024


class ProviderCore:
    """Drive with `handle(event, now_us)`; send `Tick` when `wake_us` has come."""

    def __init__(self, node: str, capacity: Capacity, version: str = "", idle_us: int = IDLE_US, us: str = "") -> None:
        self._node, self._capacity, self._version = node, capacity, version
        self._leases: dict[str, Lease] = {}
        self._actions: list[ev.Action] = []
        self._gpus = GpuRoom(capacity.gpu_share)
        self._staff = Staff(node, capacity, idle_us, self._gpus, self._act, self._begin, self._close_leases)
        self._pools, self.room, self.gpus = self._staff.pools, self._staff.room, self._gpus.desk
        self._us, self._vouching = us, Vouching(us)
        self._yielding = Yielding(
            us, self._gpus, self._staff, self._leases, self._act, self._leave, self._abort, self._rescale
        )
        self.asks = Asks(node, capacity, self._staff, self.gpus)
        self._sending = SendingAway(node, us, self._pools, self._leave, self._staff.end)
        self.wake_us: int | None = None
        self._handlers: dict[type, Callable[..., None]] = {
            ev.LeaseAsked: self._lease_asked,
            ev.LeaseScaled: self._lease_scaled,
            ev.PoolReady: self._pool_ready,
            ev.PoolFailed: self._pool_failed,
            ev.WorkerUp: self._worker_up,
            ev.WorkerGone: self._worker_gone,
            ev.InputCame: self._input_came,
            ev.PieceCame: self._piece_came,
            ev.PiecesTaken: self._pieces_taken,
            ev.InputDropped: self._input_dropped,
            ev.ItemCame: self._item_came,
            ev.ItemsTaken: self._items_taken,
            ev.OutcomeCame: self._outcome_came,
            ev.CallAwaited: self._call_awaited,
            ev.CallLeft: self._call_left,
            ev.AnswerCame: self._answer_came,
            ev.LeaseGone: self._lease_gone,
            ev.VoucherCame: self._voucher_came,
            ev.Paused: self._yielding.on_paused,
            ev.GraceBegan: self._yielding.on_grace,
            ev.GraceSpared: self._yielding.on_spared,
            ev.Resumed: self._yielding.on_resumed,
            ev.PoolGone: self._pool_gone,
            ev.GpusSeen: self._yielding.on_gpus_seen,
            ev.GpusBlocked: self._yielding.on_gpus_blocked,
            ev.NeighboursSeen: self._neighbours_seen,
            ev.GpuSampled: self._gpu_sampled,
            ev.LimitBroken: self._limit_broken,
            ev.WorkEnded: self._sending.on_ended,
            ev.Tick: self._tick,
        }

    def handle(self, event: ev.Event, now_us: int) -> list[ev.Action]:
        """Take one event and return what to do, in order."""
        self._handlers[type(event)](event, now_us)
        self._yielding.part(now_us)
        # Any event may have made room that a pool waits for.
        self._staff.feed(now_us)
        self.wake_us = min([*self._staff.times(), *self._vouching.times()], default=None)
        actions, self._actions = self._actions, []
        return actions

    def _act(self, action: ev.Action) -> None:
        self._actions.append(action)

    # What the outside may ask

    @property
    def paused(self) -> str:
        """Why no work is taken, or ""."""
        return self._yielding.paused

    @property
    def own_paused(self) -> bool:
        """Whether that holds for this node's own functions, too."""
        return self._yielding.own

    def warm(self) -> tuple[str, ...]:
        """Functions with a live sandbox, the most recently used first."""
        return self._staff.warm()

    def workers(self) -> Iterator[tuple[str, str, str, str, int]]:
        """(worker, function, caller, state, busy since) of each worker."""
        return self._staff.workers()

    def leases_of(self, pool: str) -> list[str]:
        """Leases that use a pool."""
        found = self._pools.get(pool)
        return sorted(found.leases) if found else []

    def running(self, pool: str, worker: str, number: int = 0) -> tuple[str, int] | None:
        """(lease, input) of what a worker counts as `number`; 0 means any that it runs now."""
        found = self._pools.get(pool)
        items = found.workers[worker].items if found and worker in found.workers else {}
        item = items.get(number) if number else next((each for each in items.values() if not each.over), None)
        return (item.lease, item.message.input) if item and not item.over else None

    # Leases

    def _lease_asked(self, event: ev.LeaseAsked, now_us: int) -> None:
        request = event.request
        refusal = self.asks.refuse(event.caller, request, self._yielding.stops(event.caller), now_us)
        refusal = refusal or self._sending.refuse(event.caller, request.function, now_us)
        if refusal:
            self._act(ev.Post(event.lease, refusal))
            self._act(ev.Hangup(event.lease))
            return
        pool = self._staff.pool_for(event.caller, request.function, now_us)
        pool.leases.add(event.lease)
        slots = self._slots(pool)
        # Nobody bills themselves.
        meter = LeaseMeter(signed=not self._us or event.caller != self._us)
        self._leases[event.lease] = Lease(event.caller, pool.name, slots, now_us, meter)
        self._vouching.opened(event.lease, event.caller)
        self._rescale(pool)
        granted = LeaseGranted(
            event.lease, slots, self._capacity.tier(request.function, event.caller), now_us, self._version
        )
        self._act(ev.Post(event.lease, granted))
        self._tell_ready(pool)

    def _slots(self, pool: Pool) -> int:
        """Inputs that the workers of a pool may hold, those that could still be started included."""
        busy = sum(not worker.idle for worker in pool.workers.values())
        more = min(self.room.possible(pool.spec), self.room.allowed(pool.caller, pool.spec)[0])
        workers = max(1, min(self.room.workers_max(pool.spec), busy + more))
        return workers * places(pool.spec)

    def _lease_scaled(self, event: ev.LeaseScaled, _now_us: int) -> None:
        lease = self._leases.get(event.lease)
        pool = self._pools.get(lease.pool) if lease else None
        if lease and pool:
            lease.least, lease.most = max(0, event.least), max(0, event.most)
            self._rescale(pool)

    def _rescale(self, pool: Pool) -> None:
        leases = [self._leases[name] for name in pool.leases]
        least = 0 if self.paused else max((each.least for each in leases), default=0)
        pool.least = min(self.room.workers_max(pool.spec), least)
        most = [each.most for each in leases]
        pool.most = max(most) if most and all(most) else 0

    def _leave(self, lease: str, why: str, now_us: int) -> None:
        self._act(ev.Post(lease, CloseLease(why)))
        self._lease_gone(ev.LeaseGone(lease, why), now_us)

    def _lease_gone(self, event: ev.LeaseGone, now_us: int) -> None:
        lease = self._leases.get(event.lease)
        if lease is None:
            return
        pool = self._pools.get(lease.pool)
        if pool:
            for item in [item for item in pool.queue if item.lease == event.lease]:
                pool.queue.remove(item)
                self._finish(item, 0, ends.lost(item, event.reason), now_us)
            for worker, number, item in list(pool.running()):
                if item.lease == event.lease:
                    self._end_early(pool, worker, number, event.reason, now_us)
            pool.leases.discard(event.lease)
            self._rescale(pool)
        self._leases.pop(event.lease)
        self._settle(event.lease, lease, pool.spec if pool else None, event.reason)

    def _close_leases(self, pool: Pool, reason: str) -> None:
        for lease in sorted(pool.leases):
            self._act(ev.Post(lease, CloseLease(reason)))
            self._settle(lease, self._leases.pop(lease), pool.spec, reason)
        pool.leases.clear()

    def _settle(self, name: str, lease: Lease, spec: FunctionSpec | None, reason: str) -> None:
        use = self._gpus.meters.close(name)
        tier = self._capacity.tier(spec, lease.caller) if spec else ""
        voucher = self._vouching.closed(name)
        self._act(ev.SettleLease(name, lease.caller, spec, lease.meter, lease.started_us, reason, use, tier, voucher))

    # Pools and workers

    def _pool_ready(self, event: ev.PoolReady, now_us: int) -> None:
        pool = self._pools.get(event.pool)
        if pool is None:
            self._act(ev.ClosePool(event.pool))
            return
        pool.state, pool.used_us, pool.zygote_mib = "ready", now_us, event.memory_mib
        self._act(ev.OfferChanged())

    def _pool_failed(self, event: ev.PoolFailed, now_us: int) -> None:
        """The image could not be had, the sandbox did not start, or it died."""
        pool = self._pools.pop(event.pool, None)
        if pool is None:
            return
        for worker, _, item in pool.running():
            worker.reckon(now_us)
            self._finish(item, 0, ends.lost(item, event.failure.what), now_us)
        for lease in sorted(pool.leases):
            self._act(ev.Post(lease, LeaseRefused(event.reason, event.failure)))
            self._settle(lease, self._leases.pop(lease), pool.spec, event.failure.what)
        self._act(ev.ClosePool(pool.name))
        self._act(ev.OfferChanged())

    def _worker_up(self, event: ev.WorkerUp, now_us: int) -> None:
        pool, worker = self._found(event.pool, event.worker)
        if pool is None or worker is None:
            self._act(ev.KillWorker(event.pool, event.worker))
            return
        worker.ready, worker.trouble, worker.up_us, worker.since_us = True, event.trouble, now_us, now_us
        pool.failed_starts = 0
        self._tell_ready(pool)

    def _tell_ready(self, pool: Pool) -> None:
        ready = [worker for worker in pool.workers.values() if worker.ready]
        for name in sorted(pool.leases) if ready else ():
            lease = self._leases[name]
            if not lease.told_ready:
                lease.told_ready = True
                self._act(ev.Post(name, LeaseReady(len(ready), min(worker.trouble for worker in ready))))

    def _worker_gone(self, event: ev.WorkerGone, now_us: int) -> None:
        if self._gpus.free(event.worker):
            self._act(ev.OfferChanged())
        pool = self._pools.get(event.pool)
        worker = pool.workers.pop(event.worker, None) if pool else None
        if pool is None or worker is None:
            return
        worker.reckon(now_us)
        self._staff.gone(worker)
        for item in (items := [item for _, item in worker.live()]):
            self._finish(item, 0, died(worker, item, event.reason, alone=len(items) == 1), now_us)
        if not worker.ready and not worker.going:
            pool.failed_starts += 1
            if pool.failed_starts >= STARTS_MAX:
                error = ExecutionError(f"{pool.spec.name} cannot be started on {self._node}.", why=event.reason)
                self._pool_failed(ev.PoolFailed(pool.name, "sandbox", Failure.of(error)), now_us)

    # GPUs

    def _pool_gone(self, event: ev.PoolGone, _now_us: int) -> None:
        if self._gpus.free_pool(event.pool):
            self._act(ev.OfferChanged())

    def _neighbours_seen(self, event: ev.NeighboursSeen, _now_us: int) -> None:
        self.room.others = event.cpu_milli, event.memory_mib
        self._act(ev.OfferChanged())

    def _gpu_sampled(self, event: ev.GpuSampled, _now_us: int) -> None:
        self._gpus.meters.sampled(event.sample)

    def _limit_broken(self, event: ev.LimitBroken, now_us: int) -> None:
        pool = next((each for each in self._pools.values() if event.worker in each.workers), None)
        worker = pool.workers[event.worker] if pool else None
        if pool and worker and not worker.killed:
            worker.reckon(now_us)
            failure = ends.beyond_share(pool.spec, event.gpu_mib) if event.gpu_mib else event.failure
            for number, item in worker.live():
                del worker.items[number]
                self._finish(item, 0, ends.failed(item, failure) if failure else ends.lost(item, event.why), now_us)
            self._staff.kill(pool, worker, event.why)

    # Inputs

    def _input_came(self, event: ev.InputCame, now_us: int) -> None:
        lease = self._leases.get(event.lease)
        if lease is None:
            return
        lease.open_inputs += 1
        if lease.open_inputs > lease.slots * (1 + AHEAD_MAX) + INPUTS_SLACK:
            self._act(ev.Post(event.lease, CloseLease("more inputs than the lease allows")))
            self._lease_gone(ev.LeaseGone(event.lease, "the caller broke the protocol"), now_us)
            return
        pool = self._pools[lease.pool]
        digest = payload_digest(event.message.payload) if lease.meter.signed else b""
        pool.queue.append(Item(event.lease, event.message, digest, now_us))
        pool.used_us = now_us

    def _begin(self, pool: Pool, worker: Worker, items: list[Item], now_us: int) -> None:
        """Run inputs together on a worker."""
        worker.reckon(now_us)
        if not worker.items:
            worker.since_us = now_us
        worker.batches += 1
        first = worker.number + 1
        for item in items:
            worker.number += 1
            item.worker, item.since_us, item.batch = worker.name, now_us, worker.batches
            if not any(each.lease == item.lease for _, each in worker.live()):
                self._gpus.meters.occupy(worker.name, item.lease, now_us)
            worker.items[worker.number] = item
            lease = self._leases[item.lease]
            self._vouching.began(item.lease, lease.meter.run_us, now_us)
            self._act(ev.Post(item.lease, InputStarted(item.message.input, item.message.attempt, worker.name)))
        payloads = tuple(item.message.payload for item in items)
        together = bool(pool.spec.sharing.batch_size)
        plain = any(item.message.plain for item in items)
        numbers, head = tuple(range(first, worker.number + 1)), items[0].message
        self._act(ev.Run(pool.name, worker.name, numbers, payloads, together, plain, head.call, head.index))

    def _item_came(self, event: ev.ItemCame, _now_us: int) -> None:
        _, worker = self._found(event.pool, event.worker)
        item = worker.items.get(event.number) if worker else None
        lease = self._leases.get(item.lease) if item and not item.over else None
        if item and lease:
            message = InputItem(item.message.input, item.message.attempt, event.item, event.payload)
            lease.meter.add_item(message)
            self._act(ev.Post(item.lease, message))

    def _piece_came(self, event: ev.PieceCame, now_us: int) -> None:
        lease = self._leases.get(event.lease)
        pool = self._pools.get(lease.pool) if lease else None
        for worker, number, item in pool.running() if pool else ():
            if (item.lease, item.message.input) != (event.lease, event.input) or not pool:
                continue
            item.sent += len(event.payload)
            if item.sent - item.taken > PIECE_BYTES_AHEAD_MAX:
                self._end_early(pool, worker, number, "more was sent than the worker wanted", now_us)
            else:
                self._act(ev.SendPiece(pool.name, worker.name, number, event.payload))

    def _pieces_taken(self, event: ev.PiecesTaken, _now_us: int) -> None:
        _, worker = self._found(event.pool, event.worker)
        item = worker.items.get(event.number) if worker else None
        if item and not item.over and item.taken <= event.bytes <= item.sent:
            item.taken = event.bytes
            self._act(ev.Post(item.lease, PiecesTaken(item.message.input, event.bytes)))

    def _items_taken(self, event: ev.ItemsTaken, _now_us: int) -> None:
        lease = self._leases.get(event.lease)
        pool = self._pools.get(lease.pool) if lease else None
        for worker, number, item in pool.running() if pool else ():
            if (item.lease, item.message.input) == (event.lease, event.input) and pool:
                self._act(ev.AckItems(pool.name, worker.name, number, event.items))

    def _outcome_came(self, event: ev.OutcomeCame, now_us: int) -> None:
        pool, worker = self._found(event.pool, event.worker)
        if pool is None or worker is None or event.outcome.input not in worker.items:
            return
        worker.reckon(now_us)
        item = worker.items.pop(event.outcome.input)
        pool.used_us = now_us
        if not worker.items:
            worker.since_us = now_us
        if not item.over:
            # A worker cannot have computed longer than it ran, whatever it says of itself.
            cpu_us = min(max(0, event.outcome.cpu_us), item.run_us)
            self._finish(item, cpu_us, as_done(worker, item, event.outcome), now_us)
        if worker.items and not worker.live() and not pool.spec.web:
            self._staff.kill(pool, worker, "nobody waits for what it runs")
        elif not worker.items and pool.spec.scaling.single_use and not worker.going:
            self._staff.retire(pool, worker)
        self._yielding.rest(pool, worker)

    def _finish(self, item: Item, cpu_us: int, done: InputDone, now_us: int) -> None:
        """Tell an outcome; `item` is no longer among what its worker is awaited for."""
        lease = self._leases.get(item.lease)
        if lease is None:
            return
        if item.worker and not self._others(lease, item):
            self._gpus.meters.vacate(item.worker, item.lease, now_us)
        lease.open_inputs -= 1
        lease.meter.add(done, item.digest, cpu_us)
        self._act(ev.Post(item.lease, done))

    def _others(self, lease: Lease, item: Item) -> bool:
        """Whether the worker still runs something of the same lease."""
        pool = self._pools.get(lease.pool)
        worker = pool.workers.get(item.worker) if pool else None
        return worker is not None and any(each.lease == item.lease and each is not item for _, each in worker.live())

    def _end_early(
        self, pool: Pool, worker: Worker, number: int, why: str, now_us: int, failure: Failure | None = None
    ) -> None:
        """End one input: by ending its worker, which alone stops a Python function, unless others run in there. One
        that answers requests is told first: clients leave all the time."""
        worker.reckon(now_us)
        item = worker.items[number]
        item.over, item.over_us = why, now_us
        end = ends.failed(item, failure) if failure else ends.lost(item, why, yielded=bool(worker.warned))
        self._finish(item, 0, end, now_us)
        if worker.live() or (pool.spec.web and not worker.going):
            self._act(ev.StopInput(pool.name, worker.name, number))
        elif not worker.killed:
            self._staff.kill(pool, worker, why)

    def _abort(self, pool: Pool, worker: Worker, why: str, now_us: int) -> None:
        """End a worker; what it runs may run elsewhere."""
        for number, _ in worker.live():
            self._end_early(pool, worker, number, why, now_us)
        if not worker.killed:
            self._staff.kill(pool, worker, why)

    def _input_dropped(self, event: ev.InputDropped, now_us: int) -> None:
        lease = self._leases.get(event.lease)
        pool = self._pools.get(lease.pool) if lease else None
        if pool is None:
            return
        for item in [each for each in pool.queue if each.lease == event.lease and each.message.input == event.input]:
            pool.queue.remove(item)
            self._finish(item, 0, ends.lost(item, event.reason), now_us)
        for worker, number, item in list(pool.running()):
            if item.lease == event.lease and item.message.input == event.input:
                self._end_early(pool, worker, number, event.reason, now_us)

    # Calls of what runs here

    def _call_awaited(self, event: ev.CallAwaited, _now_us: int) -> None:
        pool, worker = self._found(event.pool, event.worker)
        if pool and worker:
            self._staff.awaits(pool, worker, event.ask, event.number)

    def _call_left(self, event: ev.CallLeft, _now_us: int) -> None:
        _, worker = self._found(event.pool, event.worker)
        if worker:
            worker.asks.pop(event.ask, None)

    def _answer_came(self, event: ev.AnswerCame, now_us: int) -> None:
        pool, worker = self._found(event.pool, event.worker)
        if pool and worker:
            self._staff.answer(pool, worker, event.message, now_us + (0 if event.now else RESUME_US))

    def _found(self, pool: str, worker: str) -> tuple[Pool | None, Worker | None]:
        found = self._pools.get(pool)
        return found, found.workers.get(worker) if found else None

    # Vouchers

    def _reckon(self, name: str, now_us: int) -> None:
        """Have the caller sign for what its lease used so far, or end it."""
        lease = self._leases[name]
        used_us, running = lease.meter.run_us, 0
        for worker, _, item in self._pools[lease.pool].running():
            if item.lease == name:
                worker.reckon(now_us)
                used_us, running = used_us + item.run_us, running + 1
        offer, must_stop = self._vouching.reckoned(name, used_us, running, now_us)
        if offer:
            self._act(ev.OfferVoucher(name, offer))
        if must_stop:
            self._leave(name, UNSIGNED, now_us)

    def _voucher_came(self, event: ev.VoucherCame, _now_us: int) -> None:
        if why := self._vouching.answered(event.lease, event.envelope):
            self._act(ev.VoucherRefused(event.lease, why))

    # Time

    def _tick(self, _event: ev.Tick, now_us: int) -> None:
        for name in self._vouching.due(now_us):
            self._reckon(name, now_us)
        for pool in list(self._pools.values()):
            for worker, number, item in list(pool.running()):
                if now_us >= item.since_us + pool.spec.timeout_us:
                    self._end_early(pool, worker, number, "timeout", now_us, ends.timed_out(pool.spec))
            for worker in list(pool.workers.values()):
                if (due_us := overdue_us(pool, worker)) is not None and now_us >= due_us:
                    self._staff.kill(pool, worker, "it did not end what nobody waits for")
        self._staff.rest(now_us)
