"""The provider core: admission, worker pools, running inputs, metering. Events in, actions out; no I/O, no clock.

A pool belongs to one caller and one function: it is one sandbox with a zygote, from which workers are forked as inputs
come. Workers stay warm after their lease, and the pool is closed when nobody used it for `idle_us`, or when its room is
needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from potluck.errors import Error, ExecutionError, FunctionTimeoutError, ResourceExceededError
from potluck.wire import Failure, FunctionSpec, function_id
from potluck.wire.lease import (
    CloseLease,
    InputDone,
    InputStarted,
    LeaseGranted,
    LeaseReady,
    LeaseRefused,
)
from potluck.wire.offer import OFFER_LIST_MAX
from potluck_node.core import provider_events as ev
from potluck_node.core.admission import Machine, nonsense, refuse
from potluck_node.core.calls import AHEAD_MAX
from potluck_node.core.gpu_room import GpuRoom
from potluck_node.core.meter import payload_digest
from potluck_node.core.pools import Capacity, Item, Lease, Pool, Worker, as_done, beyond_share

# A sandbox keeps its imports in memory; sixteen idle ones are what a desktop with 16 GiB bears.
POOLS_MAX = 16
# How long a pool stays warm without work, unless the owner's settings say otherwise.
IDLE_US = 60_000_000
# A worker that dies this often before it took an input will not come up at all.
STARTS_MAX = 3
# A lease may have this many inputs with us beyond what its slots can hold ahead; more breaks the protocol.
INPUTS_SLACK = 64


class ProviderCore:
    """Drive with `handle(event, now_us)`; send `Tick` when `wake_us` has come."""

    def __init__(self, node: str, capacity: Capacity, version: str = "", idle_us: int = IDLE_US) -> None:
        self._node, self._capacity, self._version, self._idle_us = node, capacity, version, idle_us
        self._pools: dict[str, Pool] = {}
        self._leases: dict[str, Lease] = {}
        self._actions: list[ev.Action] = []
        self._counter = 0
        self._gpus = GpuRoom(capacity.gpu_share)
        self.gpus = self._gpus.desk
        self.paused = ""
        self.wake_us: int | None = None
        self._handlers: dict[type, Callable[..., None]] = {
            ev.LeaseAsked: self._lease_asked,
            ev.PoolReady: self._pool_ready,
            ev.PoolFailed: self._pool_failed,
            ev.WorkerUp: self._worker_up,
            ev.WorkerGone: self._worker_gone,
            ev.InputCame: self._input_came,
            ev.InputDropped: self._input_dropped,
            ev.OutcomeCame: self._outcome_came,
            ev.LeaseGone: self._lease_gone,
            ev.Paused: self._on_paused,
            ev.Resumed: self._on_resumed,
            ev.PoolGone: self._pool_gone,
            ev.GpusSeen: self._gpus_seen,
            ev.GpuSampled: self._gpu_sampled,
            ev.ShareExceeded: self._share_exceeded,
            ev.Tick: self._tick,
        }

    def handle(self, event: ev.Event, now_us: int) -> list[ev.Action]:
        """Take one event and return what to do, in order."""
        self._handlers[type(event)](event, now_us)
        # Any event may have made room that a pool waits for.
        for pool in list(self._pools.values()):
            if pool.queue:
                self._feed(pool, now_us)
        self._plan_wake()
        actions, self._actions = self._actions, []
        return actions

    # What the outside may ask

    def free(self) -> tuple[int, int]:
        """(CPU thousandths, MiB) that are not reserved by a worker."""
        workers = [pool.spec.resources for pool in self._pools.values() for _ in pool.workers]
        cpu = self._capacity.cpu_milli - sum(each.cpu_milli for each in workers)
        return cpu, self._capacity.memory_mib - sum(each.memory_mib for each in workers)

    def idle(self) -> tuple[int, int]:
        """(CPU thousandths, MiB) held by warm workers that do nothing and would make room."""
        idle = [
            pool.spec.resources
            for pool in self._pools.values()
            for worker in pool.workers.values()
            if worker.item is None and worker.ready
        ]
        return sum(each.cpu_milli for each in idle), sum(each.memory_mib for each in idle)

    def idle_workers(self) -> set[str]:
        """Warm workers that do nothing."""
        workers = [worker for pool in self._pools.values() for worker in pool.workers.values()]
        return {worker.name for worker in workers if worker.item is None and worker.ready}

    def warm(self) -> tuple[str, ...]:
        """Functions with a live sandbox, the most recently used first."""
        ready = sorted((pool for pool in self._pools.values() if pool.state == "ready"), key=lambda pool: -pool.used_us)
        return tuple(dict.fromkeys(pool.function for pool in ready))[:OFFER_LIST_MAX]

    def workers(self) -> Iterator[tuple[str, str, str, str, int]]:
        """(worker, function, caller, state, busy since) of each worker."""
        for pool in self._pools.values():
            for worker in pool.workers.values():
                state = "running" if worker.item else ("idle" if worker.ready else "starting")
                yield worker.name, pool.spec.name, pool.caller, state, worker.since_us

    def leases_of(self, pool: str) -> list[str]:
        """Leases that use a pool."""
        found = self._pools.get(pool)
        return sorted(found.leases) if found else []

    def running(self, pool: str, worker: str) -> tuple[str, int] | None:
        """(lease, input) that a worker runs now."""
        found = self._pools.get(pool)
        item = found.workers[worker].item if found and worker in found.workers else None
        return (item.lease, item.message.input) if item else None

    def workers_max(self, spec: FunctionSpec) -> int:
        """The most workers of this function that could ever run here at once."""
        need = spec.resources
        by_cpu = self._capacity.cpu_milli // max(1, need.cpu_milli)
        room = max(0, min(by_cpu, self._capacity.memory_mib // max(1, need.memory_mib)))
        return min(room, self.gpus.workers_max(need.gpu)) if need.gpu and room else room

    # Leases

    def _lease_asked(self, event: ev.LeaseAsked, now_us: int) -> None:
        request = event.request
        refusal = refuse(request, self._machine(event.caller, request.function), now_us)
        if refusal:
            self._actions.append(ev.Post(event.lease, refusal))
            self._actions.append(ev.Hangup(event.lease))
            return
        pool = self._pool_for(event.caller, request.function, now_us)
        pool.leases.add(event.lease)
        slots = self._room(pool)
        self._leases[event.lease] = Lease(event.caller, pool.name, slots, now_us)
        granted = LeaseGranted(event.lease, slots, self._capacity.tier(request.function), now_us, self._version)
        self._actions.append(ev.Post(event.lease, granted))

    def _machine(self, caller: str, spec: FunctionSpec) -> Machine:
        if nonsense(spec):
            return Machine(self._node, self.paused, 0, 0)
        gpus = spec.resources.gpu
        now = self._possible(spec) if self._may_pool(caller, spec) else 0
        never, waits = (self.gpus.why_never(gpus), self.gpus.why_not_now(gpus)) if gpus else ("", "")
        lent = self._capacity
        return Machine(self._node, self.paused, self.workers_max(spec), now, never, waits, lent.tiers, lent.network)

    def _possible(self, spec: FunctionSpec) -> int:
        """Workers of this size that fit into what is free or idle."""
        free, idle, need = self.free(), self.idle(), spec.resources
        by_cpu = (free[0] + idle[0]) // max(1, need.cpu_milli)
        room = max(0, min(by_cpu, (free[1] + idle[1]) // max(1, need.memory_mib)))
        return min(room, self.gpus.workers_now(need.gpu, self.idle_workers())) if need.gpu and room else room

    def _room(self, pool: Pool) -> int:
        busy = sum(worker.item is not None or not worker.ready for worker in pool.workers.values())
        return max(1, min(self.workers_max(pool.spec), busy + self._possible(pool.spec)))

    def _pool_for(self, caller: str, spec: FunctionSpec, now_us: int) -> Pool:
        function = function_id(spec)
        for pool in self._pools.values():
            if pool.caller == caller and pool.function == function:
                pool.used_us = now_us
                return pool
        self._make_pool_room()
        self._counter += 1
        pool = Pool(f"pool-{self._counter}", caller, function, spec, used_us=now_us)
        self._pools[pool.name] = pool
        self._actions.append(ev.PreparePool(pool.name, caller, spec, self.workers_max(spec)))
        return pool

    def _may_pool(self, caller: str, spec: FunctionSpec) -> bool:
        """Whether there is a pool already, or room for one more: sandboxes that still start hold no worker's room."""
        wanted = (caller, function_id(spec))
        pools = self._pools.values()
        return len(pools) < POOLS_MAX or any(not p.busy() or (p.caller, p.function) == wanted for p in pools)

    def _make_pool_room(self) -> None:
        idle = sorted((pool for pool in self._pools.values() if not pool.busy()), key=lambda pool: pool.used_us)
        for pool in idle[: max(0, len(self._pools) + 1 - POOLS_MAX)]:
            self._close_pool(pool)

    def _lease_gone(self, event: ev.LeaseGone, now_us: int) -> None:
        lease = self._leases.get(event.lease)
        if lease is None:
            return
        pool = self._pools.get(lease.pool)
        if pool:
            pool.leases.discard(event.lease)
            for item in [item for item in pool.queue if item.lease == event.lease]:
                pool.queue.remove(item)
                self._finish(item, 0, InputDone(item.message.input, item.message.attempt, 0, lost=event.reason))
            for worker in pool.workers.values():
                if worker.item and worker.item.lease == event.lease:
                    self._abort(pool, worker, event.reason, now_us)
        self._end_lease(event.lease, event.reason)

    def _end_lease(self, name: str, reason: str) -> None:
        lease = self._leases.pop(name)
        pool = self._pools.get(lease.pool)
        spec = pool.spec if pool else None
        if pool:
            pool.leases.discard(name)
        self._settle(name, lease, spec, reason)

    def _settle(self, name: str, lease: Lease, spec: FunctionSpec | None, reason: str) -> None:
        use = self._gpus.meters.close(name)
        tier = self._capacity.tier(spec) if spec else ""
        settle = ev.SettleLease(name, lease.caller, spec, lease.meter, lease.started_us, reason, use, tier)
        self._actions.append(settle)

    # Pools and workers

    def _pool_ready(self, event: ev.PoolReady, now_us: int) -> None:
        pool = self._pools.get(event.pool)
        if pool is None:
            self._actions.append(ev.ClosePool(event.pool))
            return
        pool.state, pool.used_us = "ready", now_us
        self._actions.append(ev.OfferChanged())

    def _pool_failed(self, event: ev.PoolFailed, now_us: int) -> None:
        """The image could not be had, the sandbox did not start, or it died."""
        pool = self._pools.pop(event.pool, None)
        if pool is None:
            return
        for worker in pool.workers.values():
            if worker.item:
                self._lose(worker.item, now_us - worker.since_us, event.failure.what)
        for lease in sorted(pool.leases):
            self._actions.append(ev.Post(lease, LeaseRefused(event.reason, event.failure)))
            self._settle(lease, self._leases.pop(lease), pool.spec, event.failure.what)
        self._actions += (ev.ClosePool(pool.name), ev.OfferChanged())

    def _worker_up(self, event: ev.WorkerUp, now_us: int) -> None:
        pool = self._pools.get(event.pool)
        worker = pool.workers.get(event.worker) if pool else None
        if pool is None or worker is None:
            self._actions.append(ev.KillWorker(event.pool, event.worker))
            return
        worker.ready, worker.since_us, pool.failed_starts = True, now_us, 0
        self._tell_ready(pool)

    def _tell_ready(self, pool: Pool) -> None:
        count = sum(worker.ready for worker in pool.workers.values())
        for name in sorted(pool.leases):
            lease = self._leases[name]
            if not lease.told_ready:
                lease.told_ready = True
                self._actions.append(ev.Post(name, LeaseReady(count)))

    def _worker_gone(self, event: ev.WorkerGone, now_us: int) -> None:
        if self._gpus.free(event.worker):
            self._actions.append(ev.OfferChanged())
        pool = self._pools.get(event.pool)
        worker = pool.workers.pop(event.worker, None) if pool else None
        if pool is None or worker is None:
            return
        if worker.item:
            self._died_running(worker, event.reason, now_us)
        elif not worker.ready and not worker.killed:
            pool.failed_starts += 1
            if pool.failed_starts >= STARTS_MAX:
                error = ExecutionError(f"{pool.spec.name} cannot be started on {self._node}.", why=event.reason)
                self._pool_failed(ev.PoolFailed(pool.name, "sandbox", Failure.of(error)), now_us)

    def _died_running(self, worker: Worker, reason: str, now_us: int) -> None:
        assert worker.item
        item, run_us = worker.item, now_us - worker.since_us
        if "out of memory" in reason:
            error: Error = ResourceExceededError(
                "The worker ran out of memory.", why=reason, fix="Ask for more: @app.function(memory=…) in MiB."
            )
        else:
            error = ExecutionError("The worker died while it ran the function.", why=reason)
        done = InputDone(item.message.input, item.message.attempt, run_us, failure=Failure.of(error))
        self._finish(item, 0, done)

    def _feed(self, pool: Pool, now_us: int) -> None:
        """Give queued inputs to idle workers and start workers for the rest, as far as there is room."""
        for worker in pool.workers.values():
            if pool.queue and worker.ready and worker.item is None and not worker.killed:
                self._run(pool, worker, pool.queue.popleft(), now_us)
        if pool.state != "ready":
            return
        starting = sum(not worker.ready for worker in pool.workers.values())
        for _ in range(len(pool.queue) - starting):
            if not self._spawn(pool):
                self._evict_for(pool)
                return

    def _spawn(self, pool: Pool) -> bool:
        """Start a worker, if there is room. One with GPUs gets them before its sandbox is made."""
        name = f"{self._node}-{self._counter + 1}"
        if not self._fits(pool) or (gpus := self._gpus.take(name, pool.name, pool.spec.resources.gpu)) is None:
            return False
        self._counter += 1
        pool.workers[name] = Worker(name)
        self._actions.append(ev.SpawnWorker(pool.name, name, gpus))
        return True

    def _fits(self, pool: Pool) -> bool:
        cpu, memory = self.free()
        return cpu >= pool.spec.resources.cpu_milli and memory >= pool.spec.resources.memory_mib

    def _evict_for(self, wanting: Pool) -> None:
        """End one idle worker of another pool; its end feeds the waiting pool."""
        if any(worker.killed for pool in self._pools.values() for worker in pool.workers.values()):
            return
        holds, any_helps = self.gpus.holders(), not self._fits(wanting)
        for pool in sorted(self._pools.values(), key=lambda pool: pool.used_us):
            for worker in pool.workers.values():
                hold = holds.get(worker.name)
                helps = any_helps or (hold is not None and hold.helps(wanting.spec.resources.gpu))
                if helps and pool is not wanting and worker.ready and worker.item is None:
                    self._kill(pool, worker, "its room was needed")
                    return

    def _kill(self, pool: Pool, worker: Worker, why: str) -> None:
        worker.killed = why
        self._actions.append(ev.KillWorker(pool.name, worker.name))

    def _close_pool(self, pool: Pool) -> None:
        del self._pools[pool.name]
        for lease in sorted(pool.leases):
            self._actions.append(ev.Post(lease, CloseLease("idle")))
            self._settle(lease, self._leases.pop(lease), pool.spec, "idle")
        self._actions += (ev.ClosePool(pool.name), ev.OfferChanged())

    # GPUs

    def _pool_gone(self, event: ev.PoolGone, _now_us: int) -> None:
        if self._gpus.free_pool(event.pool):
            self._actions.append(ev.OfferChanged())

    def _gpus_seen(self, event: ev.GpusSeen, now_us: int) -> None:
        before = [(gpu.uuid, gpu.state) for gpu in self.gpus.offers()]
        for holder, why in self.gpus.seen(event.gpus).items():
            pool = self._pools.get(self._gpus.pool_of(holder))
            worker = pool.workers.get(holder) if pool else None
            if pool and worker and not worker.killed:
                self._abort(pool, worker, why, now_us)
        if before != [(gpu.uuid, gpu.state) for gpu in self.gpus.offers()]:
            self._actions.append(ev.OfferChanged())

    def _gpu_sampled(self, event: ev.GpuSampled, _now_us: int) -> None:
        self._gpus.meters.sampled(event.sample)

    def _share_exceeded(self, event: ev.ShareExceeded, now_us: int) -> None:
        pool = self._pools.get(self._gpus.pool_of(event.worker))
        worker = pool.workers.get(event.worker) if pool else None
        if pool and worker and not worker.killed:
            item, worker.item = worker.item, None
            if item:
                error = beyond_share(pool.spec, event.used_mib)
                run_us = now_us - worker.since_us
                self._finish(item, 0, InputDone(item.message.input, item.message.attempt, run_us, failure=error))
            self._kill(pool, worker, "it took more of its GPU than its share")

    # Inputs

    def _input_came(self, event: ev.InputCame, now_us: int) -> None:
        lease = self._leases.get(event.lease)
        if lease is None:
            return
        lease.open_inputs += 1
        if lease.open_inputs > lease.slots * (1 + AHEAD_MAX) + INPUTS_SLACK:
            self._actions.append(ev.Post(event.lease, CloseLease("more inputs than the lease allows")))
            self._lease_gone(ev.LeaseGone(event.lease, "the caller broke the protocol"), now_us)
            return
        pool = self._pools[lease.pool]
        pool.queue.append(Item(event.lease, event.message, payload_digest(event.message.payload)))
        pool.used_us = now_us

    def _run(self, pool: Pool, worker: Worker, item: Item, now_us: int) -> None:
        worker.item, worker.since_us = item, now_us
        item.worker, item.since_us = worker.name, now_us
        worker.number += 1
        self._gpus.meters.occupy(worker.name, item.lease, now_us)
        started = InputStarted(item.message.input, item.message.attempt, worker.name)
        self._actions.append(ev.Post(item.lease, started))
        self._actions.append(ev.Run(pool.name, worker.name, worker.number, item.message.payload))

    def _outcome_came(self, event: ev.OutcomeCame, now_us: int) -> None:
        pool = self._pools.get(event.pool)
        worker = pool.workers.get(event.worker) if pool else None
        if pool is None or worker is None or worker.item is None or event.outcome.input != worker.number:
            return
        item, run_us = worker.item, max(0, now_us - worker.since_us)
        worker.item, worker.since_us, pool.used_us = None, now_us, now_us
        # A worker cannot have computed longer than it ran, whatever it says of itself.
        cpu_us = min(max(0, event.outcome.cpu_us), run_us)
        self._finish(item, cpu_us, as_done(item.message, run_us, event.outcome))

    def _finish(self, item: Item, cpu_us: int, done: InputDone) -> None:
        self._gpus.meters.vacate(item.worker, item.since_us + done.run_us)
        lease = self._leases.get(item.lease)
        if lease is None:
            return
        lease.open_inputs -= 1
        lease.meter.add(done, item.digest, cpu_us)
        self._actions.append(ev.Post(item.lease, done))

    def _lose(self, item: Item, run_us: int, why: str) -> None:
        self._finish(item, 0, InputDone(item.message.input, item.message.attempt, max(0, run_us), lost=why))

    def _abort(self, pool: Pool, worker: Worker, why: str, now_us: int) -> None:
        """Stop what runs now: only ending the process stops a Python function."""
        item, worker.item = worker.item, None
        if item:
            self._lose(item, now_us - worker.since_us, why)
        self._kill(pool, worker, why)

    def _input_dropped(self, event: ev.InputDropped, now_us: int) -> None:
        lease = self._leases.get(event.lease)
        pool = self._pools.get(lease.pool) if lease else None
        if pool is None:
            return
        for item in [each for each in pool.queue if each.lease == event.lease and each.message.input == event.input]:
            pool.queue.remove(item)
            self._lose(item, 0, event.reason)
        for worker in list(pool.workers.values()):
            item_now = worker.item
            if item_now and item_now.lease == event.lease and item_now.message.input == event.input:
                self._abort(pool, worker, event.reason, now_us)

    # Owner and time

    def _on_paused(self, event: ev.Paused, now_us: int) -> None:
        """No new work; `now` also ends what runs."""
        self.paused = event.reason
        self._actions.append(ev.OfferChanged())
        if event.now:
            for lease in sorted(self._leases):
                self._actions.append(ev.Post(lease, CloseLease(event.reason)))
                self._lease_gone(ev.LeaseGone(lease, event.reason), now_us)
            for pool in list(self._pools.values()):
                self._close_pool(pool)

    def _on_resumed(self, _event: ev.Resumed, _now_us: int) -> None:
        self.paused = ""
        self._actions.append(ev.OfferChanged())

    def _tick(self, _event: ev.Tick, now_us: int) -> None:
        for pool in list(self._pools.values()):
            for worker in list(pool.workers.values()):
                if worker.item and now_us >= worker.since_us + pool.spec.timeout_us:
                    self._time_out(pool, worker, now_us)
            if pool.state == "ready" and not pool.busy() and now_us >= pool.used_us + self._idle_us:
                self._close_pool(pool)

    def _time_out(self, pool: Pool, worker: Worker, now_us: int) -> None:
        item, worker.item = worker.item, None
        assert item
        limit = pool.spec.timeout_us / 1e6
        error = FunctionTimeoutError(
            f"{pool.spec.name} ran longer than its timeout of {limit:g} s.",
            fix="Raise it with @app.function(timeout=…) in seconds, or split the work.",
        )
        run_us = now_us - worker.since_us
        self._finish(item, 0, InputDone(item.message.input, item.message.attempt, run_us, failure=Failure.of(error)))
        self._kill(pool, worker, "timeout")

    def _plan_wake(self) -> None:
        times = [
            worker.since_us + pool.spec.timeout_us
            for pool in self._pools.values()
            for worker in pool.workers.values()
            if worker.item
        ]
        times += [
            pool.used_us + self._idle_us for pool in self._pools.values() if pool.state == "ready" and not pool.busy()
        ]
        self.wake_us = min(times) if times else None
