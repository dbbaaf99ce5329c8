"""The machine under a simulated provider: sandboxes and workers that take time, succeed, raise and crash.

A kill ends the process at once and is reported a little later, as SIGKILL is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from potluck.errors import ImageImportError, SandboxError
from potluck.wire import Failure, FunctionSpec, RemoteException
from potluck.wire.worker import InputRaised, InputSucceeded
from potluck_netsim.facts import GpusChanged, RunBegan, Used, WorkersChanged
from potluck_netsim.interface import SimNode
from potluck_netsim.workload import BROKEN, exception_of, raises, result_of, run_us
from potluck_node.core import provider_events as ev

# Measured on the real thing: a sandbox 30 ms, a fork 5 ms, a death noticed in a few; fetching an image takes seconds.
IMAGE_US, SANDBOX_US, FORK_US, NOTICED_US = 2_000_000, 30_000, 5_000, 3_000


@dataclass(eq=False)
class _Pool:
    action: ev.PreparePool
    workers: dict[str, None]


class Machine:
    """`submit` takes what happens."""

    def __init__(self, node: SimNode, submit: Callable[[ev.Event], None]) -> None:
        self._node, self._world, self._submit = node, node.world, submit
        self._pools: dict[str, _Pool] = {}
        # What a sandbox has until it is gone, by (pool, worker).
        self._gpus: dict[tuple[str, str], tuple[str, ...]] = {}
        # Since when workers are busy.
        self._busy: dict[tuple[str, str], tuple[int, str, int]] = {}
        # What they run, and who was told to save and end.
        self._running: dict[tuple[str, str], dict[int, None]] = {}
        self._warned: dict[tuple[str, str], None] = {}

    def prepare(self, action: ev.PreparePool) -> None:
        pool = self._pools[action.pool] = _Pool(action, {})
        image = action.function.image
        needed_us = SANDBOX_US + (0 if image in self._node.images else self._world.around(IMAGE_US))
        self._later(needed_us, partial(self._prepared, pool))

    def _prepared(self, pool: _Pool) -> None:
        name, function = pool.action.pool, pool.action.function
        if name not in self._pools:
            return
        self._node.images[function.image] = None
        if function.name == BROKEN:
            self._fail(name, "function", Failure.of(ImageImportError("No module named 'numpy'.")))
        elif self._world.chance(self._node.faults.pool_failed_milli):
            self._fail(name, "sandbox", Failure.of(SandboxError("The sandbox could not be started.")))
        else:
            self._submit(ev.PoolReady(name))

    def _fail(self, pool: str, reason: str, failure: Failure) -> None:
        self.close(pool)
        self._submit(ev.PoolFailed(pool, reason, failure))

    def close(self, pool: str) -> None:
        """End the sandbox and everything in it."""
        if self._pools.pop(pool, None):
            self._changed()
            self._later(NOTICED_US, partial(self._closed, pool))

    def stop(self) -> None:
        """The node is dead, and everything on it."""
        for held in list(self._busy):
            self._is_idle(*held)

    def _is_idle(self, pool: str, worker: str) -> None:
        began = self._busy.pop((pool, worker), None)
        if began:
            gpus = self._gpus.get((pool, worker), ())
            began_us, caller, cpu_milli = began
            self._world.fact(Used(self._node.name, caller, f"{pool}/{worker}", gpus, began_us, cpu_milli))

    def _closed(self, pool: str) -> None:
        for held in [held for held in self._busy if held[0] == pool]:
            self._is_idle(*held)
        self._free_gpus([held for held in self._gpus if held[0] == pool])
        self._submit(ev.PoolGone(pool))

    def _free_gpus(self, held: list[tuple[str, str]]) -> None:
        for each in held:
            self._gpus.pop(each, None)
        self._gpus_changed()

    def spawn(self, action: ev.SpawnWorker) -> None:
        pool, worker = action.pool, action.worker
        if pool not in self._pools:
            return
        self._pools[pool].workers[worker] = None
        self._changed()
        if action.gpus:
            self._gpus[pool, worker] = action.gpus
            self._gpus_changed()
        self._later(self.fork_us(), partial(self._spawned, pool, worker))

    def fork_us(self) -> int:
        """How long a worker takes to start."""
        return self._world.around(FORK_US)

    def _spawned(self, pool: str, worker: str) -> None:
        if not self._alive(pool, worker):
            return
        if self._world.chance(self._node.faults.start_failed_milli):
            self._die(pool, worker, "exit status 1")
        else:
            self._submit(ev.WorkerUp(pool, worker))

    def run(self, action: ev.Run) -> None:
        """A batch takes as long as its longest input."""
        if not self._alive(action.pool, action.worker):
            return
        function = self._pools[action.pool].action.function
        caller, cpu_milli = self._pools[action.pool].action.caller, function.resources.cpu_milli
        self._world.fact(RunBegan(self._node.name, caller))
        self._busy[action.pool, action.worker] = (self._world.now_us, caller, cpu_milli)
        needed_us = self._node.slow * max(self.needed_us(function, payload) for payload in action.payloads)
        if self._world.chance(self._node.faults.crash_milli):
            crash = partial(self._die, action.pool, action.worker, "killed by signal 11")
            self._later(self._world.dice.randrange(needed_us), crash)
            return
        self._running.setdefault((action.pool, action.worker), {}).update(dict.fromkeys(action.numbers))
        for number, payload in zip(action.numbers, action.payloads, strict=True):
            self._later(needed_us, partial(self._ran, action, number, payload, needed_us))

    def needed_us(self, function: FunctionSpec, payload: bytes) -> int:
        """How long an ordinary machine takes for an input."""
        return run_us(function, payload, self._world)

    def _ran(self, action: ev.Run, number: int, payload: bytes, cpu_us: int) -> None:
        running = self._running.get((action.pool, action.worker), {})
        if not self._alive(action.pool, action.worker) or number not in running:
            return
        del running[number]
        self._is_idle(action.pool, action.worker)
        if raises(payload):
            raised = InputRaised(number, exception_of(payload), cpu_us)
            self._submit(ev.OutcomeCame(action.pool, action.worker, raised))
        else:
            succeeded = InputSucceeded(number, result_of(payload), cpu_us)
            self._submit(ev.OutcomeCame(action.pool, action.worker, succeeded))

    def stop_input(self, action: ev.StopInput) -> None:
        """Functions do not heed it: they end when they would have ended."""

    def warn(self, action: ev.WarnWorker) -> None:
        """One function in two saves what it has, and ends before it is ended."""
        held = (action.pool, action.worker)
        self._warned[held] = None
        if self._world.chance(500):
            self._later(action.grace_us * 2 // 3, partial(self._interrupt, held))

    def calm(self, action: ev.CalmWorker) -> None:
        self._warned.pop((action.pool, action.worker), None)

    def _interrupt(self, held: tuple[str, str]) -> None:
        numbers = list(self._running.get(held, ()))
        if held not in self._warned or not numbers or not self._alive(*held):
            return
        self._running[held].clear()
        self._is_idle(*held)
        for number in numbers:
            raised = InputRaised(number, RemoteException("KeyboardInterrupt", "", ""), 0)
            self._submit(ev.OutcomeCame(*held, raised))

    def kill(self, pool: str, worker: str) -> None:
        self._die(pool, worker, "killed by signal 9")

    def _die(self, pool: str, worker: str, reason: str) -> None:
        if self._alive(pool, worker):
            del self._pools[pool].workers[worker]
            self._running.pop((pool, worker), None)
            self._warned.pop((pool, worker), None)
            self._changed()
            self._later(NOTICED_US, partial(self._noticed, pool, worker, reason))

    def _noticed(self, pool: str, worker: str, reason: str) -> None:
        self._is_idle(pool, worker)
        if pool in self._pools:
            self._free_gpus([(pool, worker)])
            self._submit(ev.WorkerGone(pool, worker, reason))

    def _alive(self, pool: str, worker: str) -> bool:
        return pool in self._pools and worker in self._pools[pool].workers

    def _later(self, delay_us: int, do: Callable[[], None]) -> None:
        self._node.later(delay_us, do)

    def _gpus_changed(self) -> None:
        self._world.fact(GpusChanged(self._node.name, tuple(gpu for gpus in self._gpus.values() for gpu in gpus)))

    def _changed(self) -> None:
        workers = [pool.action.function.resources for pool in self._pools.values() for _ in pool.workers]
        used = (sum(each.cpu_milli for each in workers), sum(each.memory_mib for each in workers))
        lent = self._node.capacity
        self._world.fact(WorkersChanged(self._node.name, len(workers), *used, lent.cpu_milli, lent.memory_mib))
