"""One pool of workers: has the image, starts the sandbox, moves inputs in and outcomes out."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import trio

from potluck.errors import Error, PythonVersionError, SandboxError
from potluck.wire import Failure, FunctionSpec
from potluck.wire.contents import split
from potluck.wire.lease import LeaseProgress
from potluck.wire.state import StateAsked, StateDropped, StateTold
from potluck.wire.worker import (
    TROUBLE_MAX,
    InputPiece,
    InputRaised,
    InputRefused,
    InputSucceeded,
    InputYielded,
    ItemsTaken,
    MountAsked,
    PiecesTaken,
    RunBatch,
    RunInput,
    StopInput,
    StopWorker,
    ToWorker,
    WorkerLog,
    WorkerReady,
)
from potluck_node.core import provider_events as ev
from potluck_node.devices.interface import Binding
from potluck_node.pool_volumes import NOTHING, PoolVolumes, Written
from potluck_node.printed import Printed
from potluck_node.sandbox import memory
from potluck_node.sandbox.interface import CLOSE_TIMEOUT_S, Launcher, Limits, SandboxSpec, Worker, WorkerEnded, Zygote
from potluck_node.sandbox.network import Gateway

log = logging.getLogger("potluck.pool")

# What the zygote itself and page tables take beyond what the function asked for, MiB.
ZYGOTE_MIB = 192

# Processes and threads of one worker: numeric libraries start several pools with a thread per core each.
PIDS_PER_WORKER = 256

# How long workers of a class may take for their exit methods, seconds: as long as a sandbox may take to end.
LEAVE_TIMEOUT_S = CLOSE_TIMEOUT_S

# How long before its end a worker that was warned is interrupted, seconds, and at most which part of its grace that is:
# to save, and for its exit methods.
LAST_S, LAST_PART = 10.0, 1 / 3

# The stream of a log to which the proxy's refusals are added.
STDERR = 2

# Failures of a start that would be the same on every machine: asking the next peer is no use.
_FUNCTION_KINDS = frozenset({"image-import", "python-version", "serialization", "remote", "invalid", "execution"})

# What a sandbox needs to use the GPUs with these uuids; raises `SandboxError` when one is gone.
Bind = Callable[[tuple[str, ...]], Binding]
# Makes the way out of a sandbox, from the names that its function asked for; it tells what it refused.
OpenGateway = Callable[[tuple[str, ...], Callable[[str], None]], Gateway]
Progress = Callable[[LeaseProgress], None]
# Receives (worker, log message); waits while the caller is slow.
OnLog = Callable[[str, WorkerLog], Awaitable[None]]
# Takes (worker, its request for shared state, or that it waits no longer); waits while the caller is slow.
OnState = Callable[[str, StateAsked | StateDropped], Awaitable[None]]
# Waits while the caller of what a worker runs by this number is slow to take what it yields.
Flow = Callable[[str, int], Awaitable[None]]


@dataclass(frozen=True)
class ReadyImage:
    """An image that can be a sandbox's root.

    `serve` runs as long as the sandbox does, and raises `potluck.errors.Error` when the root is lost; `aclose` ends it.
    """

    root: Path
    python: str
    workdir: str
    env: dict[str, str]
    serve: Callable[[], Awaitable[None]] = trio.sleep_forever
    aclose: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint

    @property
    def is_lazy(self) -> bool:
        """Whether what is read is fetched then."""
        return self.serve is not trio.sleep_forever


class Images(Protocol):
    """Where pools get their images from."""

    async def ensure(
        self, image: str, caller: str, progress: Progress, function: str, whole: bool = False
    ) -> ReadyImage:
        """Have the image usable, by this function, and in use until `release`; all of it at once if `whole`. Raises
        `potluck.errors.Error`."""
        ...

    def release(self, image: str) -> None:
        """One user less."""
        ...


class Pool:
    """Drives one `PreparePool` until `close`; everything that happens is submitted as an event."""

    def __init__(
        self, action: ev.PreparePool, images: Images, launcher: Launcher, submit: Callable[[ev.Event], None],
        log: OnLog, flow: Flow, bind: Bind, gateway: OpenGateway | None = None, state: OnState | None = None,
    ) -> None:  # fmt: skip
        self._state = state
        self._action, self._images, self._launcher, self._submit, self._log = action, images, launcher, submit, log
        self._flow, self._bind, self._gateway = flow, bind, gateway
        self.volumes = PoolVolumes(action, submit, self._say, self._post)
        # What the proxy refused, until somebody runs who can be told.
        self._refusals: list[str] = []
        self._busy: Counter[str] = Counter()
        self._printed: dict[str, Printed] = {}
        self._image: ReadyImage | None = None
        self._zygote: Zygote | None = None
        # Workers with GPUs have a sandbox each, and those that listen on a port.
        self._apart: dict[str, trio.CancelScope] = {}
        self._sandboxes: dict[str, Zygote] = {}
        self._workers: dict[str, Worker] = {}
        # What each worker is sent, in order. The core bounds the inputs, and the pieces of each.
        self._mail: dict[str, trio.MemorySendChannel[ToWorker | memoryview]] = {}
        # Those that were told that they will be ended.
        self._warned: dict[str, trio.CancelScope] = {}
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None

    async def serve(self, progress: Progress) -> None:
        """Run until closed or until the sandbox ends. Never raises."""
        try:
            with self._scope:
                await self._run(progress)
        except* Error as group:
            self._failed(_first(group))
        except* Exception as group:
            log.exception("pool %s failed", self._action.pool, exc_info=group)
            self._failed(SandboxError("The sandbox could not be used.", why=str(group), fix="Please report this bug."))

    async def _run(self, progress: Progress) -> None:
        spec = self._action.function
        image = await self._images.ensure(
            spec.image, self._action.caller, progress, f"{spec.app}/{spec.name}", spec.writable
        )
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(image.serve)
                self._image = image
                progress(LeaseProgress("sandbox"))
                if _apart(spec):
                    self._submit(ev.PoolReady(self._action.pool))
                    await trio.sleep_forever()
                network = await self._open_network(self._nursery)
                self._zygote = await self._launcher.start(self._nursery, self._spec(image, Binding(), network))
                self._check_python(self._zygote.ready.python)
                self._submit(ev.PoolReady(self._action.pool, memory.used_mib(self._zygote.host_pid)))
                why = await self._zygote.wait_ended()
                self._nursery.cancel_scope.cancel()
            raise SandboxError("The sandbox ended.", why=why)
        finally:
            if self._zygote:
                await self._zygote.aclose()
            await image.aclose()
            self._images.release(spec.image)

    def _check_python(self, inside: str) -> None:
        spec = self._action.function
        if inside.split(".")[:2] != spec.python.split(".")[:2]:
            raise PythonVersionError(
                f"The image of {spec.name} has Python {inside}, the caller runs {spec.python}.",
                why="pickled functions and arguments only fit the same version",
                fix=f"Run the caller with Python {inside}, or use an image with {spec.python}.",
            )

    async def _open_network(self, nursery: trio.Nursery) -> Path | None:
        """The way out of one sandbox, for as long as `nursery` lasts."""
        asked = self._action.function.network
        return await nursery.start(self._gateway(asked, self._refused).serve) if asked and self._gateway else None

    def _refused(self, reason: str) -> None:
        self._refusals.append(f"potluck: {reason}\n")
        self._tell_refusals()

    def _tell_refusals(self) -> None:
        """In the log of one that runs something: all workers here belong to the same caller."""
        for worker in list(self._busy)[:1]:
            while self._nursery and self._refusals:
                message = WorkerLog(0, STDERR, self._refusals.pop(0).encode())
                self._nursery.start_soon(self._log, worker, message)

    def _spec(
        self, image: ReadyImage, binding: Binding, network: Path | None, written: Written = NOTHING
    ) -> SandboxSpec:
        spec = self._action.function
        count = 1 if _apart(spec) else max(1, self._action.workers_max)
        limits = Limits(
            memory_mib=spec.resources.memory_mib * count + ZYGOTE_MIB,
            cpu_milli=max(1000, spec.resources.cpu_milli * count),
            pids=PIDS_PER_WORKER * count,
            asked_tmp_mib=spec.resources.scratch_mib * count,
        )
        env = _merged(image.env, binding.env)
        volumes, root = written
        tree = root.tree if root else image.root
        return SandboxSpec(
            tree, spec, image.python, image.workdir, env, limits, binding.binds, binding.devices,
            network=network, owner=self._action.caller, volumes=volumes.binds if volumes else (),
            overlay=root.place if root else None, tier=self._action.tier,
        )  # fmt: skip

    def _say(self, worker: str, text: str) -> None:
        if self._nursery:
            self._nursery.start_soon(self._log, worker, WorkerLog(0, STDERR, f"potluck: {text}\n".encode()))

    def _failed(self, error: Error) -> None:
        reason = "function" if error.kind in _FUNCTION_KINDS else "sandbox" if error.kind == "sandbox" else "image"
        self._submit(ev.PoolFailed(self._action.pool, reason, Failure.of(error)))

    def close(self) -> None:
        """End the sandbox and everything in it."""
        self._scope.cancel()

    def spawn(self, worker: str, gpus: tuple[str, ...] = ()) -> None:
        if self._nursery and _apart(self._action.function):
            self._apart[worker] = trio.CancelScope()
            self._nursery.start_soon(self._work_apart, worker, gpus)
        elif self._nursery:
            self._nursery.start_soon(self._work, worker)

    async def _work(self, name: str) -> None:
        assert self._zygote
        self._submit(ev.WorkerGone(self._action.pool, name, await self._life(name, self._zygote)))

    async def _life(self, name: str, zygote: Zygote) -> str:
        """The life of one worker; returns why it ended."""
        try:
            worker = await zygote.spawn(name)
        except SandboxError as error:
            return error.what
        self._workers[name], self._printed[name] = worker, Printed()
        self._mail[name], mail = trio.open_memory_channel[ToWorker | memoryview](math.inf)
        assert self._nursery
        self._nursery.start_soon(self._send_all, worker, mail)
        try:
            while True:
                await self._take(name, await worker.receive())
        except WorkerEnded as end:
            return end.reason
        finally:
            self._busy.pop(name, None)
            self.calm(name)
            self._mail.pop(name).close()
            del self._workers[name], self._printed[name]

    async def _work_apart(self, name: str, gpus: tuple[str, ...]) -> None:
        """One worker in a sandbox that sees its GPUs alone, which are free once the sandbox is gone.

        Raises `Error` for what would be the same on every machine.
        """
        reason = "killed"
        try:
            with self._apart[name]:
                reason = await self._sandbox_life(name, gpus)
        except* Error as group:
            error = _first(group)
            if error.kind in _FUNCTION_KINDS:
                raise error from None
            reason = f"{error.what} {error.why}".strip()
        finally:
            self._apart.pop(name, None)
        self._submit(ev.WorkerGone(self._action.pool, name, reason))

    async def _sandbox_life(self, name: str, gpus: tuple[str, ...]) -> str:
        assert self._image
        async with self.volumes.of(name) as written, trio.open_nursery() as nursery:
            binding = self._bind(gpus) if gpus else Binding()
            spec = self._spec(self._image, binding, await self._open_network(nursery), written)
            zygote = await self._launcher.start(nursery, spec)
            self._sandboxes[name] = zygote
            try:
                self._check_python(zygote.ready.python)
                reason = await self._life(name, zygote)
                await self.volumes.commit_last(name)
            finally:
                del self._sandboxes[name]
                await zygote.aclose()
            nursery.cancel_scope.cancel()
        return reason

    def sandboxes(self) -> dict[str, int]:
        """Workers with a sandbox of their own → its first process, as the host numbers it."""
        return {name: zygote.host_pid for name, zygote in self._sandboxes.items()}

    @property
    def caller(self) -> str:
        """For whom it works."""
        return self._action.caller

    def sandbox_of(self, worker: str) -> Zygote | None:
        """The sandbox in which a worker is."""
        return self._sandboxes.get(worker, self._zygote) if worker in self._workers else None

    async def _take(self, name: str, message: object) -> None:
        if isinstance(message, InputSucceeded | InputRaised | InputRefused):
            message = await self.volumes.committed(name, message)
            self._busy -= Counter({name: 1})
            self._printed[name].reset()
            self._submit(ev.OutcomeCame(self._action.pool, name, message))
        elif isinstance(message, InputYielded):
            self._submit(ev.ItemCame(self._action.pool, name, message.input, message.item, message.payload))
            await self._flow(name, message.input)
        elif isinstance(message, PiecesTaken):
            self._submit(ev.PiecesTaken(self._action.pool, name, message.input, message.bytes))
        elif isinstance(message, WorkerReady):
            self._submit(ev.WorkerUp(self._action.pool, name, message.trouble[:TROUBLE_MAX]))
        elif isinstance(message, StateAsked | StateDropped) and self._state:
            await self._state(name, message)
        elif isinstance(message, MountAsked):
            if failure := self.volumes.ask(name, message):
                await self.refuse(name, message.number, failure)
        elif isinstance(message, WorkerLog):
            await self._take_log(name, message)

    async def _take_log(self, name: str, message: WorkerLog) -> None:
        printed = self._printed[name]
        if failure := printed.add(len(message.data)):
            self._submit(ev.LimitBroken(name, failure.what, failure=failure))
            return
        await trio.sleep(printed.wait_s)
        await self._log(name, message)

    def run(self, action: ev.Run) -> None:
        if self._nursery and action.worker in self._workers:
            message: ToWorker = RunInput(action.numbers[0], action.payloads[0], action.plain, action.call, action.index)
            if action.together:
                message = RunBatch(action.numbers, action.payloads, action.plain)
            self._post(action.worker, message)
            self._busy[action.worker] += len(action.numbers)
            self._tell_refusals()

    def ack_items(self, worker: str, number: int, items: int) -> None:
        self._post(worker, ItemsTaken(number, items))

    def send_piece(self, worker: str, number: int, payload: bytes) -> None:
        self._post(worker, InputPiece(number, payload))

    def tell(self, worker: str, message: StateTold) -> None:
        """The answer to what a worker asked."""
        self._post(worker, message)

    async def refuse(self, worker: str, number: int, failure: Failure) -> None:
        """No to what a worker asked; nothing more is read from it until it has taken that."""
        if worker in self._workers:
            with suppress(WorkerEnded):  # `_work` reports it
                await self._workers[worker].send(StateTold(number, failure=failure))

    def stop_input(self, worker: str, number: int) -> None:
        self._post(worker, StopInput(number))

    def _post(self, worker: str, message: ToWorker) -> None:
        """At once if nothing else is on its way: waking a task takes as long as the rest of it."""
        mail = self._mail.get(worker)
        if mail is None:
            return
        left: ToWorker | memoryview | None = message
        facts = mail.statistics()
        if facts.tasks_waiting_receive and not (self._workers[worker].sending or split(message)[1]):
            left = self._workers[worker].send_now(message)
        if left is not None:
            mail.send_nowait(left)

    async def _send_all(self, worker: Worker, mail: trio.MemoryReceiveChannel[ToWorker | memoryview]) -> None:
        with suppress(WorkerEnded):  # `_work` reports it
            async for message in mail:
                await (worker.send_rest(message) if isinstance(message, memoryview) else worker.send(message))

    def stop(self, worker: str) -> None:
        """End an idle worker; one of a class may run its exit methods first, an application shut down."""
        spec = self._action.function
        if self._nursery and worker in self._workers and (spec.parameters or spec.web):
            self._nursery.start_soon(self._leave, worker)
        else:
            self.kill(worker)

    async def _leave(self, name: str) -> None:
        worker = self._workers[name]
        self.volumes.leaving.add(name)
        self._post(name, StopWorker())
        await trio.sleep(LEAVE_TIMEOUT_S)
        if self._workers.get(name) is worker:
            self.volumes.leaving.discard(name)
            log.info("worker %s did not leave within %g s and is killed", name, LEAVE_TIMEOUT_S)
            self.kill(name)

    def warn(self, worker: str, grace_us: int) -> None:
        """Tell a worker that it will be ended in so long, and have it end by itself before."""
        if self._nursery and worker in self._workers and worker not in self._warned:
            self._warned[worker] = trio.CancelScope()
            self._nursery.start_soon(self._end_in_grace, worker, grace_us / 1e6)

    def calm(self, worker: str) -> None:
        """It may go on."""
        if worker in self._warned:
            self._warned.pop(worker).cancel()

    async def _end_in_grace(self, name: str, grace_s: float) -> None:
        worker = self._workers[name]
        # An application has signals of its own, and is shut down by the message alone.
        signals = self._action.function.web is None
        with self._warned[name]:
            if signals:
                await worker.interrupt()
            await trio.sleep(grace_s - min(LAST_S, grace_s * LAST_PART))
            if self._workers.get(name) is worker:
                self.volumes.leaving.add(name)
                if signals:
                    await worker.interrupt(last=True)
                self._post(name, StopWorker())

    def kill(self, worker: str) -> None:
        if worker in self._apart:
            self._apart[worker].cancel()
        elif self._nursery and worker in self._workers:
            self._nursery.start_soon(self._workers[worker].kill)


def _apart(spec: FunctionSpec) -> bool:
    """Whether each worker has a sandbox of its own: for GPUs, what it writes, and for a port, which it alone has."""
    is_server = spec.web is not None and spec.web.kind == "server"
    return bool(spec.resources.gpu or spec.volumes or spec.writable) or is_server


def _merged(image: Mapping[str, str], devices: Mapping[str, str]) -> dict[str, str]:
    """The driver's libraries come before those that an image names."""
    path = "LD_LIBRARY_PATH"
    both = ":".join(value for value in (devices.get(path), image.get(path)) if value)
    return {**image, **devices, **({path: both} if both else {})}


def _first(group: BaseExceptionGroup[Error]) -> Error:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
