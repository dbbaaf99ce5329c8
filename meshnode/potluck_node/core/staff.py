"""The pools of a provider and their workers: started, fed, rested, ended. Part of the provider's core.

A pool is one sandbox with a zygote, from which workers are forked as inputs come. Workers stay warm after their work;
the zygote stays longer, since it holds only what it imported, within the owner's `zygote_mib`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count

from msgspec.structs import replace

from potluck.wire import FunctionSpec, function_id
from potluck.wire.offer import OFFER_LIST_MAX
from potluck.wire.state import StateTold
from potluck_node.core import provider_events as ev
from potluck_node.core.dealing import deal, due_us, missing, target
from potluck_node.core.gpu_room import GpuRoom
from potluck_node.core.pools import Capacity, Item, Pool, Worker
from potluck_node.core.room import Room

# A sandbox keeps its imports in memory; sixteen idle ones are what a desktop with 16 GiB bears.
POOLS_MAX = 16
# How long a worker stays warm without work, unless owner and caller say otherwise; and the most: as Modal's.
IDLE_US, IDLE_MAX_US = 60_000_000, 20 * 60_000_000
# Shares that differ by less than this, in thousandths, are alike: a few seconds decide nothing.
SHARE_STEP = 50
# How long an application may tidy up after its client has gone: the runner cancels its part after 2 s.
GRACE_US = 5_000_000
# How long an answer to a call of a worker's own waits for CPU: what has it may wait for that worker, by a queue.
RESUME_US = 5_000_000
# How long a zygote waits for its function to be called again; longer where the caller asked for snapshots.
ZYGOTE_US, SNAPSHOT_US = 10 * 60_000_000, 60 * 60_000_000


class Staff:
    """`act` takes an action; `begin` starts a run of inputs on a worker; `on_close` ends the leases of a pool."""

    def __init__(
        self, node: str, capacity: Capacity, idle_us: int, gpus: GpuRoom, act: Callable[[ev.Action], None],
        begin: Callable[[Pool, Worker, list[Item], int], None], on_close: Callable[[Pool, str], None],
    ) -> None:  # fmt: skip
        self._node, self._capacity, self._idle_us, self._gpus = node, capacity, idle_us, gpus
        self._act, self._begin, self._on_close = act, begin, on_close
        self.pools: dict[str, Pool] = {}
        self.room = Room(capacity, self.pools, gpus.desk)
        # Why nothing new begins for a caller, or "".
        self.stopped: Callable[[str], str] = lambda caller: ""
        self._numbers = count(1)
        # To be told when there is CPU for it, in this order.
        self._answers: list[tuple[Pool, Worker, StateTold, int]] = []
        # Whether any worker lends its CPU, or has and it is reserved twice: nothing else is to be looked at where not.
        self._lending = False

    # Pools

    def pool_for(self, caller: str, spec: FunctionSpec, now_us: int) -> Pool:
        """The pool of this caller and function, a new one when there is none."""
        function = function_id(spec)
        for pool in self.pools.values():
            if (pool.caller, pool.function) == (caller, function):
                pool.used_us, pool.spec = now_us, replace(pool.spec, scaling=spec.scaling)
                return pool
        self._make_pool_room()
        pool = Pool(f"pool-{next(self._numbers)}", caller, function, spec, used_us=now_us)
        self.pools[pool.name] = pool
        self._act(
            ev.PreparePool(pool.name, caller, spec, self.room.workers_max(spec), self._capacity.tier(spec, caller))
        )
        return pool

    def may_pool(self, caller: str, spec: FunctionSpec) -> bool:
        """Whether there is a pool already, or room for one more: sandboxes that still start hold no worker's room."""
        wanted = (caller, function_id(spec))
        pools = self.pools.values()
        return len(pools) < POOLS_MAX or any(not p.busy() or (p.caller, p.function) == wanted for p in pools)

    def has_worker(self, caller: str, spec: FunctionSpec) -> bool:
        """Whether a caller's function has a worker that stays."""
        wanted = (caller, function_id(spec))
        return any((each.caller, each.function) == wanted and each.staying() for each in self.pools.values())

    def _make_pool_room(self) -> None:
        idle = sorted((pool for pool in self.pools.values() if not pool.busy()), key=lambda pool: pool.used_us)
        for pool in idle[: max(0, len(self.pools) + 1 - POOLS_MAX)]:
            self.end(pool, "idle")

    def end(self, pool: Pool, reason: str) -> None:
        """Close a pool at once, with all that runs in it."""
        del self.pools[pool.name]
        self._on_close(pool, reason)
        self._act(ev.ClosePool(pool.name))
        self._act(ev.OfferChanged())

    # Workers

    def feed(self, now_us: int) -> None:
        """Give queued inputs to workers and start workers for the rest, as far as there is room; workers that only
        stand by take no room that an input waits for."""
        if self._lending:
            self._resume(now_us)
        for pool in self.pools.values():
            if pool.queue and not self.stopped(pool.caller):
                self._give_up(pool, now_us)
                self._deal(pool, now_us, target(pool.spec))
        wanting = [pool for pool in self.pools.values() if pool.queue or (pool.least and missing(pool) > 0)]
        wanting = [pool for pool in wanting if not self.stopped(pool.caller)]
        full = False
        for pool in self._in_turn(wanting):
            if pool.state == "ready" and (pool.queue or not full) and not self._answers:
                full |= not self._start_missing(pool, now_us)
            self._deal(pool, now_us, max(1, pool.spec.sharing.max_inputs))
        self._trim()

    def _in_turn(self, pools: list[Pool]) -> list[Pool]:
        """Whoever used least of their share comes first, then whoever has the fewest workers, then whoever was given
        none for longest; workers that only stand by come last."""
        if len(pools) < 2:
            return pools
        counts = self.room.counts()
        shares = {caller: self.room.share(caller) // SHARE_STEP for caller in {pool.caller for pool in pools}}
        return sorted(
            pools, key=lambda each: (not each.queue, shares[each.caller], counts[each.caller], each.spawned_us)
        )

    def _deal(self, pool: Pool, now_us: int, runs_max: int) -> None:
        for worker, items in deal(pool, now_us, runs_max, self._may_wake):
            self._begin(pool, worker, items, now_us)

    # Workers that wait for calls of their own

    def awaits(self, pool: Pool, worker: Worker, ask: int, number: int) -> None:
        """What runs as `number` does nothing until `ask` is answered: others may have its CPU."""
        if number in worker.items:
            full = self.room.free()[0] <= 0
            worker.asks[ask] = worker.items[number].batch
            self._lending = True
            if full and worker.waits:
                self._act(ev.OfferChanged())

    def answer(self, pool: Pool, worker: Worker, message: StateTold, due_us: int) -> None:
        """Tell an answer as soon as there is CPU to do something with it, before others get any; at `due_us` in any
        case."""
        self._answers.append((pool, worker, message, due_us))
        self._lending = True

    def _resume(self, now_us: int) -> None:
        self._answers = [entry for entry in self._answers if self.pools.get(entry[0].name) is entry[0]]
        for entry in list(self._answers):
            pool, worker, message, due_us = entry
            wakes = worker.waits and self._last(worker, message.number)
            if not wakes or due_us <= now_us or self.room.may_wake(pool.spec):
                self._answers.remove(entry)
                worker.asks.pop(message.number, None)
                self._act(ev.Tell(pool.name, worker.name, message))
        self._lending = bool(self._answers) or self.room.lends()

    def _may_wake(self, spec: FunctionSpec) -> bool:
        """Whether a worker that needs no processor may be given something to do."""
        return not self._lending or (not self._answers and self.room.may_wake(spec))

    @staticmethod
    def _last(worker: Worker, ask: int) -> bool:
        """Whether a run goes on with the answer to this."""
        return list(worker.asks.values()).count(worker.asks.get(ask, 0)) == 1

    def gone(self, worker: Worker) -> None:
        """Nobody is there for its answers."""
        self._answers = [entry for entry in self._answers if entry[1] is not worker]

    def _start_missing(self, pool: Pool, now_us: int) -> bool:
        """Returns False if there was no room for all."""
        for _ in range(missing(pool)):
            if not self.room.allowed(pool.caller, pool.spec)[0]:
                return True
            if not self._spawn(pool, now_us):
                if pool.queue:
                    self._evict_for(pool)
                return False
        return True

    def _spawn(self, pool: Pool, now_us: int) -> bool:
        """Start a worker, if there is room. One with GPUs gets them before its sandbox is made."""
        if not self.room.fits(pool.spec):
            return False
        name = f"{self._node}-{next(self._numbers)}"
        gpus = self._gpus.take(name, pool.name, pool.spec.resources.gpu)
        if gpus is None:
            return False
        pool.workers[name], pool.spawned_us = Worker(name), now_us
        self._act(ev.SpawnWorker(pool.name, name, gpus))
        return True

    def _evict_for(self, wanting: Pool) -> None:
        """End one idle worker of another pool; its end feeds the waiting pool."""
        if any(worker.killed or worker.leaving for pool in self.pools.values() for worker in pool.workers.values()):
            return
        for pool in sorted(self.pools.values(), key=lambda pool: pool.used_us):
            for worker in pool.workers.values():
                if pool is not wanting and worker.idle and self.room.helps(worker, wanting.spec):
                    self.retire(pool, worker)
                    return

    def _give_up(self, pool: Pool, now_us: int) -> None:
        """End a worker that is free, for a caller that waits and has fewer."""
        idle = [worker for worker in pool.workers.values() if worker.idle and worker.number]
        if not idle or not pool.queue:
            return
        waiting = [each for each in self.pools.values() if each.state == "ready" and each.queue and missing(each) > 0]
        if self.room.owes(pool, idle[0], [each for each in waiting if not self.room.fits(each.spec)], now_us):
            self.retire(pool, idle[0])

    def retire(self, pool: Pool, worker: Worker) -> None:
        """Ask an idle worker to end; a class may have something to do first."""
        worker.leaving = True
        self._act(ev.StopWorker(pool.name, worker.name))

    def kill(self, pool: Pool, worker: Worker, why: str) -> None:
        """End a worker and what it runs."""
        worker.killed = why
        self._act(ev.KillWorker(pool.name, worker.name))

    # Time

    def rest(self, now_us: int) -> None:
        """End workers and zygotes that nobody used for long enough."""
        for pool in list(self.pools.values()):
            for worker in self._spare(pool):
                if now_us >= worker.since_us + self.idle_us(pool):
                    self.retire(pool, worker)
            if self._rests(pool) and pool.leases and now_us >= pool.used_us + self.idle_us(pool):
                self._on_close(pool, "idle")
            if self._rests(pool) and now_us >= pool.used_us + _zygote_us(pool):
                self.end(pool, "idle")

    def idle_us(self, pool: Pool) -> int:
        """How long a worker of this pool stays without work."""
        return min(pool.spec.scaling.scaledown_us, IDLE_MAX_US) or self._idle_us

    def _spare(self, pool: Pool) -> list[Worker]:
        """Idle workers beyond those that the caller wants up, the longest idle first."""
        idle = sorted((each for each in pool.workers.values() if each.idle), key=lambda each: each.since_us)
        return idle[: max(0, len(pool.staying()) - pool.least)]

    def _rests(self, pool: Pool) -> bool:
        return pool.state == "ready" and not pool.workers and not pool.queue and not pool.least

    def _trim(self) -> None:
        """Keep the zygotes without workers within the owner's budget: the longest unused go first."""
        resting = [pool for pool in self.pools.values() if self._rests(pool) and not pool.leases]
        total = 0
        for pool in sorted(resting, key=_worth, reverse=True):
            total += pool.zygote_mib
            if total > self._capacity.zygote_mib:
                self.end(pool, "idle")

    def warm(self) -> tuple[str, ...]:
        """Functions with a live sandbox, the most recently used first."""
        ready = sorted((pool for pool in self.pools.values() if pool.state == "ready"), key=lambda pool: -pool.used_us)
        return tuple(dict.fromkeys(pool.function for pool in ready))[:OFFER_LIST_MAX]

    def workers(self) -> Iterator[tuple[str, str, str, str, int]]:
        """(worker, function, caller, state, busy since) of each worker."""
        for pool in self.pools.values():
            for worker in pool.workers.values():
                state = "running" if worker.items else ("idle" if worker.ready else "starting")
                yield worker.name, pool.spec.name, pool.caller, state, worker.since_us

    def times(self) -> Iterable[int]:
        """When something is to be done though nothing happens."""
        yield from (due_us for _, _, _, due_us in self._answers)
        for pool in self.pools.values():
            for worker in pool.workers.values():
                # The first of them began first.
                for item in worker.items.values():
                    if not item.over:
                        yield item.since_us + pool.spec.timeout_us
                        break
            if pool.spec.web:
                yield from (due for each in pool.workers.values() if (due := overdue_us(pool, each)) is not None)
            for worker in self._spare(pool)[:1]:
                yield worker.since_us + self.idle_us(pool)
            if self._rests(pool):
                yield pool.used_us + (self.idle_us(pool) if pool.leases else _zygote_us(pool))
            if (due := due_us(pool)) is not None:
                yield due


def overdue_us(pool: Pool, worker: Worker) -> int | None:
    """When a worker that answers requests is killed for one that does not end, though its client has gone; None while
    others run in there, which would suffer."""
    if not pool.spec.web or not worker.items or worker.going or not all(item.over for item in worker.items.values()):
        return None
    return min(item.over_us for item in worker.items.values()) + GRACE_US


def _zygote_us(pool: Pool) -> int:
    return SNAPSHOT_US if pool.spec.snapshot else ZYGOTE_US


def _worth(pool: Pool) -> tuple[bool, int]:
    return pool.spec.snapshot, pool.used_us
