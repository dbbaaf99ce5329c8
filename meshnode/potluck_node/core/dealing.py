"""Which worker gets which queued inputs, and how many more workers a queue deserves. Pure.

A worker takes `Sharing.max_inputs` runs at once; a run is one input, or a batch of them. New workers are started as
soon as those there are hold `target_inputs` runs each; until one is up, the others take up to `max_inputs`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from potluck.wire import FunctionSpec
from potluck_node.core.pools import Item, Pool, Worker


def run_size(spec: FunctionSpec) -> int:
    """Inputs of one run."""
    return max(1, spec.sharing.batch_size)


def places(spec: FunctionSpec) -> int:
    """Inputs that one worker can hold."""
    return max(1, spec.sharing.max_inputs) * run_size(spec)


def target(spec: FunctionSpec) -> int:
    """Runs that each worker should have before another is started."""
    sharing = spec.sharing
    return max(1, min(sharing.target_inputs or sharing.max_inputs, sharing.max_inputs))


def deal(
    pool: Pool, now_us: int, runs_max: int, may_wake: Callable[[FunctionSpec], bool] = lambda spec: True
) -> Iterator[tuple[Worker, list[Item]]]:
    """Take runs off the queue for workers that have fewer than `runs_max`, the emptiest first. One that needed no
    processor is only given some if it `may_wake`."""
    held: list[Item] = []
    try:
        if pool.spec.web:
            yield from _homed(pool, may_wake, held)
        while pool.queue and (run := _due(pool, now_us)):
            wakes = may_wake(pool.spec)
            found = (each for each in _open(pool, runs_max) if wakes or not each.asleep)
            worker = min(found, key=lambda each: _runs(pool, each), default=None)
            if worker is None:
                return
            yield worker, [pool.queue.popleft() for _ in range(run)]
    finally:
        pool.queue.extendleft(reversed(held))


def _homed(
    pool: Pool, may_wake: Callable[[FunctionSpec], bool], held: list[Item]
) -> Iterator[tuple[Worker, list[Item]]]:
    """What wants a worker that lives goes to it, as soon as that has a place; `held` is what has to wait."""
    for item in [each for each in pool.queue if home(pool, each)]:
        worker = home(pool, item)
        pool.queue.remove(item)
        if (
            worker
            and worker in _open(pool, max(1, pool.spec.sharing.max_inputs))
            and (not worker.asleep or may_wake(pool.spec))
        ):
            yield worker, [item]
        else:
            held.append(item)


def home(pool: Pool, item: Item) -> Worker | None:
    """The worker that an input wants, if that lives."""
    worker = pool.workers.get(item.message.worker) if item.message.worker else None
    return worker if worker and not worker.going else None


def missing(pool: Pool) -> int:
    """How many workers to start for what is still queued, and for those that the caller wants up."""
    spec = pool.spec
    waits = sum(home(pool, item) is None for item in pool.queue) if spec.web else len(pool.queue)
    runs = -(-waits // run_size(spec))
    wanted = max(-(-runs // target(spec)) - pool.starting(), pool.least - len(pool.staying()))
    return min(wanted, pool.most - len(pool.staying())) if pool.most else wanted


def due_us(pool: Pool) -> int | None:
    """When the batch that is being gathered is to run, though it is not full; None when nothing waits for that."""
    size = pool.spec.sharing.batch_size
    if not size or not 0 < len(pool.queue) < size or not any(_open(pool, max(1, pool.spec.sharing.max_inputs))):
        return None
    return pool.queue[0].came_us + pool.spec.sharing.batch_wait_us


def _due(pool: Pool, now_us: int) -> int:
    """Inputs of the run that can begin now."""
    sharing = pool.spec.sharing
    if not sharing.batch_size:
        return 1
    if len(pool.queue) >= sharing.batch_size:
        return sharing.batch_size
    return len(pool.queue) if now_us >= pool.queue[0].came_us + sharing.batch_wait_us else 0


def _open(pool: Pool, runs_max: int) -> list[Worker]:
    used = pool.spec.scaling.single_use
    return [
        worker
        for worker in pool.workers.values()
        if worker.ready and not worker.going and _runs(pool, worker) < runs_max and not (used and worker.number)
    ]


def _runs(pool: Pool, worker: Worker) -> int:
    if not pool.spec.sharing.batch_size:
        return len(worker.items)
    return len({item.batch for item in worker.items.values()})
