"""Caller's node ↔ provider, on the stream `/potluck/lease/1`: one lease, many inputs pipelined.

Heartbeats and credit travel at once; the rest is held back until the receiver has granted credit (`Credit`), so that
a slow reader never blocks the connection for others.
"""

from __future__ import annotations

from potluck.wire.common import Failure, FunctionSpec, Message, RemoteException
from potluck.wire.state import StateAsked, StateDropped, StateTold

# Each side may have so many bytes on the way before it needs credit. Above Yamux's 256 KiB window, so that ours rules.
CREDIT_BYTES = 4 << 20

# A peer that has sent nothing for this long is dead: three missed heartbeats.
HEARTBEAT_US = 1_000_000
DEAD_AFTER_US = 3_000_000


class LeaseRequest(Message, frozen=True):
    """Opens a lease. `inputs_waiting` hints at how many workers to start; `now_us` is the caller's clock.

    `function` has no secrets: they are `sealed` to the provider's key, for this lease (`secret_context`), as packed
    pairs; empty when there are none."""

    protocol: int
    lease: str
    function: FunctionSpec
    inputs_waiting: int
    now_us: int
    version: str = ""
    sealed: bytes = b""


def secret_context(lease: str) -> str:
    """For what the secrets of a lease are sealed."""
    return f"potluck lease {lease}"


class LeaseGranted(Message, frozen=True):
    """`slots` is the number of inputs the provider runs at once; `tier` names the sandbox."""

    lease: str
    slots: int
    tier: str
    now_us: int
    version: str = ""


class LeaseRefused(Message, frozen=True):
    """`reason` is one of busy, paused, image, policy, gpu, quota, version, clock, sandbox, function (it would
    fail anywhere).

    May also follow `LeaseGranted`, when the image or the sandbox turned out to be unusable."""

    reason: str
    failure: Failure
    retry_after_us: int = 0


class LeaseProgress(Message, frozen=True):
    """What the provider does before it can run: `stage` is image, sandbox or import; `done`/`total` in bytes."""

    stage: str
    done: int = 0
    total: int = 0


class LeaseReady(Message, frozen=True):
    """The first worker has loaded the function; inputs start now. With `trouble` they will fail: its start did."""

    workers: int
    trouble: str = ""


class Input(Message, frozen=True):
    """With `plain`, the caller takes no outcome that only code can rebuild (`potluck.plain`). `call` and `index` are
    what the function is told of its place. It waits for `worker` as long as that lives, if it is named."""

    input: int
    attempt: int
    payload: bytes
    plain: bool = False
    call: str = ""
    index: int = 0
    worker: str = ""


class InputPiece(Message, frozen=True):
    """More of a request that goes on after it has begun (`wire.web`), as far as `PiecesTaken` allows."""

    input: int
    payload: bytes


class CancelInput(Message, frozen=True):
    input: int
    reason: str


class InputStarted(Message, frozen=True):
    input: int
    attempt: int
    worker: str


class InputLog(Message, frozen=True):
    input: int
    worker: str
    stream: int
    data: bytes


class InputItem(Message, frozen=True):
    """One item that a generator yielded; `item` counts from 0. `InputDone` ends them."""

    input: int
    attempt: int
    item: int
    payload: bytes


class ItemsTaken(Message, frozen=True):
    """The caller has taken so many items of a generator."""

    input: int
    items: int


class PiecesTaken(Message, frozen=True):
    """The worker has taken so many bytes of a request's pieces, and wants `wire.web.AHEAD_BYTES_MAX` more."""

    input: int
    bytes: int


class ScaleWorkers(Message, frozen=True):
    """The caller wants this lease to have at least so many workers up, busy ones included, though it sent no input for
    them, and at most so many; 0 leaves it to the provider."""

    least: int = 0
    most: int = 0


class InputDone(Message, frozen=True):
    """`run_us` is the wall time on the worker as the provider measured it; exactly one of the three outcomes is set,
    or `lost` says why the worker ended without one. It is `yielded` if that was because the owner wants the machine:
    then the input is not to blame, however often it happens."""

    input: int
    attempt: int
    run_us: int
    payload: bytes | None = None
    exception: RemoteException | None = None
    failure: Failure | None = None
    lost: str = ""
    yielded: bool = False


class CloseLease(Message, frozen=True):
    """Either side ends the lease; running inputs are cancelled and the receipt says `reason`."""

    reason: str


class ReceiptOffered(Message, frozen=True):
    """Provider's signed receipt (envelope bytes) over all that the lease used."""

    envelope: bytes


class ReceiptSigned(Message, frozen=True):
    """The caller's countersignature over the same body, or why it refuses."""

    envelope: bytes = b""
    refused: str = ""


class VoucherOffered(Message, frozen=True):
    """The provider's signed voucher (envelope bytes): what the lease has used so far."""

    envelope: bytes


class VoucherSigned(Message, frozen=True):
    """The caller's countersignature over the same body, or why it refuses."""

    envelope: bytes = b""
    refused: str = ""


class Heartbeat(Message, frozen=True):
    now_us: int


class Credit(Message, frozen=True):
    """Grant `bytes` more to the other side."""

    bytes: int


# These overtake held-back messages and cost no credit; each is small. All others keep their order, since it counts: a
# cancel must not overtake its input, nor a receipt the outcomes that it covers.
CONTROL = (Heartbeat, Credit, VoucherOffered, VoucherSigned)

ToProvider = (
    LeaseRequest
    | ItemsTaken
    | ScaleWorkers
    | Input
    | InputPiece
    | CancelInput
    | CloseLease
    | ReceiptSigned
    | VoucherSigned
    | StateTold
    | Heartbeat
    | Credit
)
ToCaller = (
    LeaseGranted
    | LeaseRefused
    | LeaseProgress
    | LeaseReady
    | InputStarted
    | InputLog
    | InputItem
    | PiecesTaken
    | InputDone
    | CloseLease
    | ReceiptOffered
    | VoucherOffered
    | StateAsked
    | StateDropped
    | Heartbeat
    | Credit
)
