"""Events into and actions out of the provider's core."""

from __future__ import annotations

from dataclasses import dataclass

from potluck.wire import Failure, FunctionSpec, Message
from potluck.wire.lease import Input, LeaseRequest
from potluck.wire.state import StateTold
from potluck.wire.worker import InputRaised, InputRefused, InputSucceeded
from potluck_ledger.entries import Voucher
from potluck_node.core.gpu_meter import GpuSample, GpuUse
from potluck_node.core.gpus import Gpu
from potluck_node.core.meter import LeaseMeter


@dataclass(frozen=True, slots=True)
class LeaseAsked:
    """`caller` is the peer id that the transport proved."""

    lease: str
    caller: str
    request: LeaseRequest


@dataclass(frozen=True, slots=True)
class PoolReady:
    """`memory_mib` is what the sandbox takes before any worker is forked."""

    pool: str
    memory_mib: int = 0


@dataclass(frozen=True, slots=True)
class PoolFailed:
    """`reason` is image, sandbox or function (the last: it would fail anywhere)."""

    pool: str
    reason: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class WorkerUp:
    """With `trouble` it is ready to say why it is not."""

    pool: str
    worker: str
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class WorkerGone:
    pool: str
    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class PoolGone:
    """Nothing of a closed or failed pool runs any more: the GPUs that its sandboxes had are free."""

    pool: str


@dataclass(frozen=True, slots=True)
class GpusSeen:
    """All GPUs that the owner lends, as they are now."""

    gpus: tuple[Gpu, ...]


@dataclass(frozen=True, slots=True)
class GpusBlocked:
    """GPUs that the owner does not lend now: their uuids, each with its state as peers read it. What others run there
    has `grace_us` from when it is first told; on those in `end` that is over."""

    states: tuple[tuple[str, str], ...]
    end: frozenset[str] = frozenset()
    grace_us: int = 0


@dataclass(frozen=True, slots=True)
class NeighboursSeen:
    """What other nodes of this machine have reserved, CPU in thousandths."""

    cpu_milli: int
    memory_mib: int


@dataclass(frozen=True, slots=True)
class GpuSampled:
    sample: GpuSample


@dataclass(frozen=True, slots=True)
class LimitBroken:
    """A worker took more than it may, and is to end. `gpu_mib` is what it has of a GPU beyond its share; other limits
    say by `failure` what its caller reads."""

    worker: str
    why: str
    gpu_mib: int = 0
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class WorkEnded:
    """The owner ends what a worker's function does here for its caller."""

    worker: str


@dataclass(frozen=True, slots=True)
class InputCame:
    lease: str
    message: Input


@dataclass(frozen=True, slots=True)
class PieceCame:
    """More of a request."""

    lease: str
    input: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class PiecesTaken:
    """A worker has taken so many bytes of a request's pieces."""

    pool: str
    worker: str
    number: int
    bytes: int


@dataclass(frozen=True, slots=True)
class InputDropped:
    """The caller cancels one input."""

    lease: str
    input: int
    reason: str


@dataclass(frozen=True, slots=True)
class ItemCame:
    """A generator yielded; `number` is the worker's own for the input."""

    pool: str
    worker: str
    number: int
    item: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class ItemsTaken:
    """The caller has taken so many items of a generator."""

    lease: str
    input: int
    items: int


@dataclass(frozen=True, slots=True)
class OutcomeCame:
    pool: str
    worker: str
    outcome: InputSucceeded | InputRaised | InputRefused


@dataclass(frozen=True, slots=True)
class CallAwaited:
    """A worker has asked for a call, by its own number `ask`, and the input of `number` does nothing until it is
    answered; 0 where it is not known which input that is."""

    pool: str
    worker: str
    ask: int
    number: int


@dataclass(frozen=True, slots=True)
class CallLeft:
    """A worker waits no longer for what it asked."""

    pool: str
    worker: str
    ask: int


@dataclass(frozen=True, slots=True)
class AnswerCame:
    """To what a worker awaits. With `now`, what it awaited may wait for it."""

    pool: str
    worker: str
    message: StateTold
    now: bool = False


@dataclass(frozen=True, slots=True)
class LeaseScaled:
    """How many workers the caller wants, as in `wire.lease.ScaleWorkers`."""

    lease: str
    least: int
    most: int


@dataclass(frozen=True, slots=True)
class LeaseGone:
    """The caller closed the lease, or is dead."""

    lease: str
    reason: str


@dataclass(frozen=True, slots=True)
class Paused:
    """The owner wants the machine; with `now`, running work ends at once. Without `own`, this node's own functions go
    on: whoever sits at a machine may use it."""

    reason: str
    now: bool = False
    own: bool = True


@dataclass(frozen=True, slots=True)
class GraceBegan:
    """Since the owner wants the machine, what runs is ended after so long, by `Paused` with `now`; `own` as there."""

    reason: str
    grace_us: int
    own: bool = True


@dataclass(frozen=True, slots=True)
class GraceSpared:
    """What runs may go on after all, though nothing new begins."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """The owner lends again."""


@dataclass(frozen=True, slots=True)
class VoucherCame:
    """A caller signed what its lease has used so far."""

    lease: str
    envelope: bytes


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed; to be sent when `ProviderCore.wake_us` is reached."""


Event = (
    LeaseAsked
    | PoolReady
    | PoolFailed
    | WorkerUp
    | WorkerGone
    | PoolGone
    | GpusSeen
    | GpusBlocked
    | NeighboursSeen
    | GpuSampled
    | LimitBroken
    | WorkEnded
    | InputCame
    | PieceCame
    | PiecesTaken
    | InputDropped
    | ItemCame
    | ItemsTaken
    | OutcomeCame
    | CallAwaited
    | CallLeft
    | AnswerCame
    | LeaseScaled
    | LeaseGone
    | VoucherCame
    | Paused
    | GraceBegan
    | GraceSpared
    | Resumed
    | Tick
)


# What comes neither from a lease nor from a pool.
FromOwner = Paused | GraceBegan | GraceSpared | Resumed | NeighboursSeen | GpusBlocked | WorkEnded


@dataclass(frozen=True, slots=True)
class Post:
    """Send a message on the lease's stream."""

    lease: str
    message: Message


@dataclass(frozen=True, slots=True)
class Hangup:
    """Close the stream of a lease that was refused."""

    lease: str


@dataclass(frozen=True, slots=True)
class PreparePool:
    """Have the image, start the sandbox; then `PoolReady` or `PoolFailed`, and in the end `PoolGone`.

    A function with GPUs, or that listens on a port, has a sandbox for each worker, made by `SpawnWorker`. `tier` is
    the kind of sandbox; "" leaves it to the function.
    """

    pool: str
    caller: str
    function: FunctionSpec
    workers_max: int
    tier: str = ""


@dataclass(frozen=True, slots=True)
class SpawnWorker:
    """With `gpus` (their uuids) the worker gets a sandbox of its own, in which only these are seen."""

    pool: str
    worker: str
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """Run inputs, each by its number and payload; `together` means as one batch, `plain` that they must return data."""

    pool: str
    worker: str
    numbers: tuple[int, ...]
    payloads: tuple[bytes, ...]
    together: bool = False
    plain: bool = False
    call: str = ""
    index: int = 0


@dataclass(frozen=True, slots=True)
class AckItems:
    """So many items of a generator were taken: it may go on."""

    pool: str
    worker: str
    number: int
    items: int


@dataclass(frozen=True, slots=True)
class SendPiece:
    """More of a request."""

    pool: str
    worker: str
    number: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Tell:
    """Give a worker the answer that it waits for."""

    pool: str
    worker: str
    message: StateTold


@dataclass(frozen=True, slots=True)
class StopInput:
    """Nobody waits for this input, but the worker has others, or answers requests."""

    pool: str
    worker: str
    number: int


@dataclass(frozen=True, slots=True)
class WarnWorker:
    """Tell a worker that it will be ended in `grace_us`, and have it end by itself shortly before."""

    pool: str
    worker: str
    grace_us: int


@dataclass(frozen=True, slots=True)
class CalmWorker:
    """It may go on after all."""

    pool: str
    worker: str


@dataclass(frozen=True, slots=True)
class StopWorker:
    """Ask an idle worker to end; kill it if it does not."""

    pool: str
    worker: str


@dataclass(frozen=True, slots=True)
class KillWorker:
    pool: str
    worker: str


@dataclass(frozen=True, slots=True)
class ClosePool:
    pool: str


@dataclass(frozen=True, slots=True)
class SettleLease:
    """The lease is over: sign a receipt for what it used and have it countersigned, if the caller is still there.

    `gpu` is still added to by the next sample of the GPUs, which should be taken before signing.
    """

    lease: str
    caller: str
    function: FunctionSpec | None
    meter: LeaseMeter
    started_us: int
    reason: str
    gpu: GpuUse | None = None
    tier: str = ""
    # What the caller has signed so far, with both signatures; empty if nothing.
    voucher: bytes = b""


@dataclass(frozen=True, slots=True)
class OfferVoucher:
    """Sign this and have the caller countersign it: `VoucherCame`."""

    lease: str
    voucher: Voucher


@dataclass(frozen=True, slots=True)
class VoucherRefused:
    """A caller's countersignature is not taken, and why."""

    lease: str
    why: str


@dataclass(frozen=True, slots=True)
class OfferChanged:
    """Tell the mesh."""


Action = (
    Post
    | Hangup
    | PreparePool
    | SpawnWorker
    | Run
    | AckItems
    | SendPiece
    | Tell
    | StopInput
    | WarnWorker
    | CalmWorker
    | StopWorker
    | KillWorker
    | ClosePool
    | SettleLease
    | OfferVoucher
    | VoucherRefused
    | OfferChanged
)
