"""What the provider's core remembers of pools, workers, leases and inputs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from potluck.tiers import NO_GPU_TIERS, at_least
from potluck.wire import FunctionSpec
from potluck.wire.lease import Input
from potluck_node.core.meter import LeaseMeter


@dataclass(frozen=True)
class Capacity:
    """What the owner lends; which GPUs there are comes with `GpusSeen`. `zygote_mib` bounds sandboxes that are kept
    with nothing but their imports. `least` is the weakest tier for a caller's functions, "" for any."""

    cpu_milli: int
    memory_mib: int
    tiers: tuple[str, ...] = ("bwrap",)
    gpu_share: bool = False
    network: tuple[str, ...] = ()
    zygote_mib: int = 2048
    least: Callable[[str], str] = field(default=lambda caller: "", compare=False)

    def allowed(self, caller: str, spec: FunctionSpec) -> tuple[str, ...]:
        """The tiers in which a caller's function may run; with GPUs those that have them."""
        least = self.least(caller)
        if not least or (least in NO_GPU_TIERS and spec.resources.gpu):
            return self.tiers
        return tuple(tier for tier in self.tiers if at_least((tier,), least))

    def tier(self, spec: FunctionSpec, caller: str = "") -> str:
        """The sandbox that a function gets, or "" when there is none that both sides accept."""
        return at_least(self.allowed(caller, spec), spec.tier) or ""


@dataclass(slots=True)
class Item:
    """One input; `worker` has it since `since_us`, in its run `batch`. `run_us` is its part of the worker's time.

    `over` says why its outcome was told already, though it still runs, since `over_us`. Of its pieces, as many bytes
    were `sent` to the worker, which has `taken` some.
    """

    lease: str
    message: Input
    digest: bytes
    came_us: int = 0
    worker: str = ""
    since_us: int = 0
    batch: int = 0
    run_us: int = 0
    over: str = ""
    over_us: int = 0
    sent: int = 0
    taken: int = 0


@dataclass(slots=True)
class Worker:
    """`number` counts the inputs of this worker, which are `items` while they run. It is ready since `up_us`, busy or
    idle since `since_us`; `reckoned_us` until when its time was shared out. It is `leaving` when asked to end. Of what
    it awaits, `asks` has the run that does nothing meanwhile. Its start went wrong where there is `trouble`. It was
    `warned` that it will be ended, with the reason."""

    name: str
    ready: bool = False
    items: dict[int, Item] = field(default_factory=dict)
    number: int = 0
    batches: int = 0
    up_us: int = 0
    since_us: int = 0
    reckoned_us: int = 0
    killed: str = ""
    leaving: bool = False
    asks: dict[int, int] = field(default_factory=dict)
    trouble: str = ""
    warned: str = ""

    @property
    def waits(self) -> bool:
        """Whether all that it runs waits for calls of its own, so that it needs no processor."""
        return bool(self.asks and self.items) and all(item.batch in self.asks.values() for item in self.items.values())

    @property
    def asleep(self) -> bool:
        """Whether it needs no processor."""
        return (self.ready and not self.items) or self.waits

    @property
    def idle(self) -> bool:
        """Ready, and free to be ended or used."""
        return self.ready and not self.items and not self.going

    @property
    def going(self) -> bool:
        return bool(self.killed or self.warned) or self.leaving

    def live(self) -> list[tuple[int, Item]]:
        """Inputs whose outcome is awaited."""
        return [(number, item) for number, item in self.items.items() if not item.over]

    def reckon(self, now_us: int) -> None:
        """Share out the time since the last reckoning: inputs that ran side by side took an equal part each, so that
        together they are billed the time of the worker, once."""
        items = self.live()
        passed_us = max(0, now_us - self.reckoned_us)
        for place, (_, item) in enumerate(items):
            item.run_us += passed_us // len(items) + (place < passed_us % len(items))
        self.reckoned_us = now_us


@dataclass(slots=True)
class Pool:
    """One sandbox of one caller and function; `state` is preparing or ready. The caller wants from `least` to
    `most` workers, where 0 means that it does not mind."""

    name: str
    caller: str
    function: str
    spec: FunctionSpec
    state: str = "preparing"
    workers: dict[str, Worker] = field(default_factory=dict)
    queue: deque[Item] = field(default_factory=deque)
    leases: set[str] = field(default_factory=set)
    used_us: int = 0
    spawned_us: int = 0
    failed_starts: int = 0
    zygote_mib: int = 0
    least: int = 0
    most: int = 0

    def busy(self) -> bool:
        return bool(self.queue) or any(worker.items for worker in self.workers.values())

    def staying(self) -> list[Worker]:
        return [worker for worker in self.workers.values() if not worker.going]

    def starting(self) -> int:
        return sum(not worker.ready and not worker.going for worker in self.workers.values())

    def running(self) -> Iterator[tuple[Worker, int, Item]]:
        """(worker, number, input) of each whose outcome is awaited."""
        for worker in list(self.workers.values()):
            for number, item in worker.live():
                yield worker, number, item


@dataclass(slots=True)
class Lease:
    """`least` and `most` workers are what its caller asked for."""

    caller: str
    pool: str
    slots: int
    started_us: int
    meter: LeaseMeter = field(default_factory=LeaseMeter)
    open_inputs: int = 0
    told_ready: bool = False
    least: int = 0
    most: int = 0
