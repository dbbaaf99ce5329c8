"""Events into and actions out of the caller's core. Plain data: the node and the simulator drive the same core."""

from __future__ import annotations

from dataclasses import dataclass

from potluck.wire import Failure, FunctionSpec, RemoteException, Scaling
from potluck.wire.common import Limit
from potluck.wire.lease import InputDone, InputItem
from potluck.wire.verify import EvidenceFacts, Verification


@dataclass(frozen=True, slots=True)
class CallOpened:
    """A `limit` takes the place of the function's. A call from inside a function is `asked` for by an input, (lease,
    number): then both count, and those of what asked. With `verify`, results of strangers are checked as it says. Some
    may be `spent` since before the node's last restart, microseconds and cost. One that was spawned by a function is
    `under` the limits of that one's call: each has a name, and what was spent of it."""

    call: str
    function: FunctionSpec
    limit: Limit | None = None
    asked: tuple[str, int] | None = None
    verify: Verification | None = None
    spent: tuple[int, int] = (0, 0)
    under: tuple[tuple[Limit, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ResultsJudged:
    """The caller's program has compared results (`wire.verify.ResultsJudged`)."""

    call: str
    case: int
    agrees: int
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class InputAdded:
    """`worker` is the one that it is to have, as long as that lives."""

    call: str
    index: int
    payload: bytes
    worker: str = ""


@dataclass(frozen=True, slots=True)
class ItemsTaken:
    """Whoever placed the call has taken so many items of a generator."""

    call: str
    index: int
    items: int


@dataclass(frozen=True, slots=True)
class PieceAdded:
    """More of a request (`wire.web`) that a worker has begun."""

    call: str
    index: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class InputsEnded:
    call: str


@dataclass(frozen=True, slots=True)
class CallCancelled:
    call: str
    reason: str


@dataclass(frozen=True, slots=True)
class LeaseAccepted:
    """It `carries` inputs of at most so many bytes, all where that is None."""

    lease: str
    slots: int
    carries: int | None = None


@dataclass(frozen=True, slots=True)
class LeaseDenied:
    """`reason` as in `wire.lease.LeaseRefused`."""

    lease: str
    reason: str
    failure: Failure
    retry_after_us: int = 0


@dataclass(frozen=True, slots=True)
class LeaseStage:
    lease: str
    text: str


@dataclass(frozen=True, slots=True)
class LeaseWarm:
    """A worker of the lease is ready; with `trouble`, to say that it could not start."""

    lease: str
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class InputBegan:
    lease: str
    input: int
    worker: str


@dataclass(frozen=True, slots=True)
class InputFinished:
    lease: str
    done: InputDone


@dataclass(frozen=True, slots=True)
class ItemYielded:
    """A generator yielded on a lease."""

    lease: str
    message: InputItem


@dataclass(frozen=True, slots=True)
class PiecesTaken:
    """A worker has taken so many bytes of a request's pieces."""

    lease: str
    input: int
    bytes: int


@dataclass(frozen=True, slots=True)
class FunctionKept:
    """`holder` wants as many workers held up as `function.scaling` says, until `FunctionLeft`."""

    holder: str
    function: FunctionSpec


@dataclass(frozen=True, slots=True)
class FunctionLeft:
    """`holder` is gone."""

    holder: str


@dataclass(frozen=True, slots=True)
class ScalingSet:
    """From now on, for all calls of the function."""

    function: FunctionSpec
    scaling: Scaling


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """The stream ended, or the peer fell silent."""

    lease: str
    why: str


@dataclass(frozen=True, slots=True)
class OffersChanged:
    """New offers are in the book; perhaps someone can be asked now."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed; to be sent when `CallCore.wake_us` is reached."""


Event = (
    CallOpened
    | ResultsJudged
    | InputAdded
    | ItemsTaken
    | PieceAdded
    | InputsEnded
    | CallCancelled
    | LeaseAccepted
    | LeaseDenied
    | LeaseStage
    | LeaseWarm
    | InputBegan
    | InputFinished
    | ItemYielded
    | PiecesTaken
    | FunctionKept
    | FunctionLeft
    | ScalingSet
    | LeaseLost
    | OffersChanged
    | Tick
)


@dataclass(frozen=True, slots=True)
class OpenLease:
    lease: str
    peer: str
    function: FunctionSpec
    inputs_waiting: int


@dataclass(frozen=True, slots=True)
class SendInput:
    """With `plain`, its outcome must be data: the peer is not trusted."""

    lease: str
    input: int
    attempt: int
    payload: bytes
    plain: bool = False
    worker: str = ""


@dataclass(frozen=True, slots=True)
class AckItems:
    """So many items of a generator were taken: it may go on."""

    lease: str
    input: int
    items: int


@dataclass(frozen=True, slots=True)
class SendPiece:
    """More of a request."""

    lease: str
    input: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class ScaleLease:
    """How many workers the lease should have; 0 leaves it to the provider."""

    lease: str
    least: int
    most: int


@dataclass(frozen=True, slots=True)
class AbortInput:
    lease: str
    input: int
    reason: str


@dataclass(frozen=True, slots=True)
class EndLease:
    lease: str
    reason: str


@dataclass(frozen=True, slots=True)
class Deliver:
    """The one outcome of an input; exactly one of the three is set."""

    call: str
    index: int
    payload: bytes | None = None
    exception: RemoteException | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class DeliverItem:
    """One item of a generator, in order."""

    call: str
    index: int
    item: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Began:
    """A worker has begun a request."""

    call: str
    index: int
    worker: str


@dataclass(frozen=True, slots=True)
class DeliverTaken:
    """So many bytes of a request's pieces were taken."""

    call: str
    index: int
    bytes: int


@dataclass(frozen=True, slots=True)
class CallEnded:
    """Every input of the call has been delivered."""

    call: str


@dataclass(frozen=True, slots=True)
class Notice:
    """What a call waits for, in words. `state` is queued, placed, leased or running."""

    call: str
    state: str
    text: str


@dataclass(frozen=True, slots=True)
class Standing:
    """A function that is kept has a worker that is ready; or, with a failure, can have none."""

    function: str
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class AskJudge:
    """Have the caller's program compare results (`wire.verify.JudgeResults`)."""

    call: str
    case: int
    payloads: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """Peers were found right or wrong: keep why."""

    evidence: EvidenceFacts


Action = (
    OpenLease
    | SendInput
    | SendPiece
    | AckItems
    | ScaleLease
    | AbortInput
    | EndLease
    | Deliver
    | DeliverItem
    | Began
    | DeliverTaken
    | CallEnded
    | Notice
    | Standing
    | AskJudge
    | Judged
)
