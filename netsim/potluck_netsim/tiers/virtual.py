"""A stand-in for the sandbox seam: workers that take virtual time, and images that are there."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from potluck.wire import PROTOCOL
from potluck.wire.worker import (  # fmt: skip
    FromWorker,
    InputRaised,
    InputSucceeded,
    RunBatch,
    RunInput,
    StopWorker,
    ToWorker,
    WorkerReady,
    ZygoteReady,
)
from potluck_netsim.machine import FORK_US, NOTICED_US, SANDBOX_US
from potluck_netsim.workload import exception_of, raises, result_of
from potluck_node.pool import Progress, ReadyImage
from potluck_node.sandbox.interface import SandboxSpec, Worker, WorkerEnded, Zygote

# How long an input takes, seconds, by its payload; told once, when a worker begins it.
Took = Callable[[bytes], float]


class VirtualImages:
    """`pool.Images`: all are there."""

    async def ensure(
        self, image: str, caller: str, progress: Progress, function: str, whole: bool = False
    ) -> ReadyImage:
        await trio.lowlevel.checkpoint()
        return ReadyImage(Path("/"), "/bin/python", "/", {})

    def release(self, image: str) -> None:
        """Nothing is held."""


class VirtualWorker(Worker):
    def __init__(self, name: str, took: Took) -> None:
        self._name, self._took = name, took
        self._inbox, self._mail = trio.open_memory_channel[ToWorker](math.inf)
        self._outbox, self._outcomes = trio.open_memory_channel[FromWorker](math.inf)
        self._scope = trio.CancelScope()
        self._status = 0

    @property
    def name(self) -> str:
        return self._name

    @property
    def pid(self) -> int:
        return 0

    @property
    def sending(self) -> bool:
        return False

    async def live(self) -> None:
        """Run what is sent, one after the other, until killed or told to stop."""
        with self._scope, self._outbox:
            self._outbox.send_nowait(WorkerReady())
            async for message in self._mail:
                if isinstance(message, StopWorker):
                    return
                if isinstance(message, RunInput):
                    await self._run((message.input,), (message.payload,))
                elif isinstance(message, RunBatch):
                    await self._run(message.inputs, message.payloads)
        await trio.sleep(NOTICED_US / 1e6)

    async def _run(self, numbers: Sequence[int], payloads: Sequence[bytes]) -> None:
        took_s = max([self._took(payload) for payload in payloads])
        await trio.sleep(took_s)
        for number, payload in zip(numbers, payloads, strict=True):
            if raises(payload):
                self._outbox.send_nowait(InputRaised(number, exception_of(payload), int(took_s * 1e6)))
            else:
                self._outbox.send_nowait(InputSucceeded(number, result_of(payload), int(took_s * 1e6)))

    async def send(self, message: ToWorker) -> None:
        await trio.lowlevel.checkpoint()
        self.send_now(message)

    def send_now(self, message: ToWorker) -> memoryview | None:
        self._inbox.send_nowait(message)
        return None

    async def send_rest(self, rest: memoryview) -> None:
        """There never is one."""

    async def receive(self) -> FromWorker:
        try:
            return await self._outcomes.receive()
        except trio.EndOfChannel:
            reason = "killed by signal 9" if self._status else "exit status 0"
            raise WorkerEnded(self._status, reason) from None

    async def interrupt(self, last: bool = False) -> None:
        """It does not heed that."""

    async def kill(self) -> None:
        self._status = -9
        self._scope.cancel()


class VirtualZygote(Zygote):
    def __init__(self, nursery: trio.Nursery, python: str, took: Took) -> None:
        self._nursery, self._took = nursery, took
        self._ready = ZygoteReady(PROTOCOL, python, 0)
        self._ended = trio.Event()
        self._workers: list[VirtualWorker] = []

    @property
    def ready(self) -> ZygoteReady:
        return self._ready

    @property
    def host_pid(self) -> int:
        return 0

    @property
    def alive(self) -> bool:
        return not self._ended.is_set()

    async def spawn(self, worker: str) -> Worker:
        await trio.sleep(FORK_US / 1e6)
        made = VirtualWorker(worker, self._took)
        self._workers.append(made)
        self._nursery.start_soon(made.live)
        return made

    async def execute(self, name: str, command: Sequence[str], size: tuple[int, int], channel: socket.socket) -> int:
        raise NotImplementedError("no plan runs commands")

    async def wait_ended(self) -> str:
        await self._ended.wait()
        return "it was closed"

    async def aclose(self) -> None:
        for worker in self._workers:
            await worker.kill()
        self._ended.set()


class VirtualLauncher:
    """`sandbox.interface.Launcher`."""

    tier, tiers, lacking = "bwrap", ("bwrap",), ()

    def __init__(self, took: Took) -> None:
        self._took = took

    async def start(self, nursery: trio.Nursery, spec: SandboxSpec) -> Zygote:
        await trio.sleep(SANDBOX_US / 1e6)
        return VirtualZygote(nursery, spec.function.python, self._took)
