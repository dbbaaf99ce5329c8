"""What the provider's core remembers of pools, workers, leases and inputs."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from potluck.errors import ResourceExceededError
from potluck.tiers import at_least
from potluck.wire import Failure, FunctionSpec
from potluck.wire.lease import Input, InputDone
from potluck.wire.worker import InputRaised, InputRefused, InputSucceeded
from potluck_node.core.meter import LeaseMeter


@dataclass(frozen=True)
class Capacity:
    """What the owner lends; which GPUs there are comes with `GpusSeen`."""

    cpu_milli: int
    memory_mib: int
    tiers: tuple[str, ...] = ("bwrap",)
    gpu_share: bool = False
    network: tuple[str, ...] = ()

    def tier(self, spec: FunctionSpec) -> str:
        """The sandbox that a function gets, or "" when there is none that its caller accepts."""
        return at_least(self.tiers, spec.tier) or ""


@dataclass(slots=True)
class Item:
    """One input; `worker` runs it since `since_us`."""

    lease: str
    message: Input
    digest: bytes
    worker: str = ""
    since_us: int = 0


@dataclass(slots=True)
class Worker:
    """`number` counts the inputs of this worker; a late answer to an earlier one is recognised by it."""

    name: str
    ready: bool = False
    item: Item | None = None
    number: int = 0
    since_us: int = 0
    killed: str = ""


@dataclass(slots=True)
class Pool:
    name: str
    caller: str
    function: str
    spec: FunctionSpec
    state: str = "preparing"
    workers: dict[str, Worker] = field(default_factory=dict)
    queue: deque[Item] = field(default_factory=deque)
    leases: set[str] = field(default_factory=set)
    used_us: int = 0
    failed_starts: int = 0

    def busy(self) -> bool:
        return bool(self.queue) or any(worker.item for worker in self.workers.values())


@dataclass(slots=True)
class Lease:
    caller: str
    pool: str
    slots: int
    started_us: int
    meter: LeaseMeter = field(default_factory=LeaseMeter)
    open_inputs: int = 0
    told_ready: bool = False


def as_done(message: Input, run_us: int, outcome: InputSucceeded | InputRaised | InputRefused) -> InputDone:
    """A worker's answer as the caller gets it."""
    if isinstance(outcome, InputSucceeded):
        return InputDone(message.input, message.attempt, run_us, payload=outcome.payload)
    if isinstance(outcome, InputRaised):
        return InputDone(message.input, message.attempt, run_us, exception=outcome.exception)
    return InputDone(message.input, message.attempt, run_us, failure=outcome.failure)


def beyond_share(spec: FunctionSpec, used_mib: int) -> Failure:
    """Why a worker that took more of a shared GPU than it asked for was ended."""
    asked = " or ".join(spec.resources.gpu)
    error = ResourceExceededError(
        f"The worker took {used_mib} MiB of a GPU of which {spec.name} asked for a part.",
        why=f"it asked for {asked}; others share that GPU",
        fix='Ask for more, or for a whole GPU: gpu="any:>=…GB".',
    )
    return Failure.of(error)
