"""Node ↔ sandbox, over socket pairs. The sandbox side is not trusted: each message is checked and limited.

The zygote's socket carries `ToZygote`/`FromZygote`; with each `SpawnWorker` travels one end of a fresh socket pair
(SCM_RIGHTS) on which node and worker exchange `ToWorker`/`FromWorker`. All are framed as in `potluck.frames`.
"""

from __future__ import annotations

from potluck.wire.common import Failure, FunctionSpec, Message, RemoteException
from potluck.wire.state import StateAsked, StateDropped, StateTold

# A log message is cut at this size by the runner; more per message is a protocol violation.
LOG_BYTES_MAX = 64 << 10


class StartZygote(Message, frozen=True):
    """First message to a zygote: import what `function` declares, then fork workers on demand."""

    protocol: int
    function: FunctionSpec


class SpawnWorker(Message, frozen=True):
    """Fork a worker; one end of its socket pair comes along as ancillary data."""

    worker: str


class KillWorker(Message, frozen=True):
    """SIGKILL one worker, at once."""

    worker: str


class InterruptWorker(Message, frozen=True):
    """Its owner wants the machine back: SIGINT to a worker when its grace begins, SIGTERM shortly before the end, if it
    is the `last` that it is told."""

    worker: str
    last: bool = False


class ExecCommand(Message, frozen=True):
    """Run a command beside the workers. The socket that comes along is its standard input, output and error; with
    `rows`, a terminal of that size between. `WorkerExited` with this name tells the end, `KillWorker` brings it."""

    name: str
    command: tuple[str, ...]
    rows: int = 0
    columns: int = 0


class ZygoteReady(Message, frozen=True):
    protocol: int
    python: str
    imports_us: int


class ZygoteFailed(Message, frozen=True):
    """A declared import, or the function's own module, could not be loaded. Nothing follows."""

    failure: Failure
    exception: RemoteException | None = None


class WorkerSpawned(Message, frozen=True):
    worker: str
    pid: int


class WorkerExited(Message, frozen=True):
    """`status` is the exit code, or minus the signal number."""

    worker: str
    status: int


class RunInput(Message, frozen=True):
    """Run the function on one input. `payload` is the pickled `(args, kwargs)`. With `plain`, what it returns or raises
    must be data (`potluck.plain`). It is input `index` of its `call`."""

    input: int
    payload: bytes
    plain: bool = False
    call: str = ""
    index: int = 0


class RunBatch(Message, frozen=True):
    """Run a function that takes batches on several inputs at once. Each gets an outcome of its own."""

    inputs: tuple[int, ...]
    payloads: tuple[bytes, ...]
    plain: bool = False


class ItemsTaken(Message, frozen=True):
    """So many items of a generator were taken by its caller; it may run `ITEMS_AHEAD_MAX` ahead of that."""

    input: int
    items: int


class InputPiece(Message, frozen=True):
    """More of a request that has begun (`wire.web`)."""

    input: int
    payload: bytes


class StopInput(Message, frozen=True):
    """Nobody waits for this input any more, but others run in the worker: end it if that can be done alone."""

    input: int


class StopWorker(Message, frozen=True):
    """Finish: no more inputs come. The worker exits with 0."""


# What a worker says of its start when that failed, in characters.
TROUBLE_MAX = 2000


class WorkerReady(Message, frozen=True):
    """The function is loaded in this worker; or, with `trouble`, it is not, as its first input will tell."""

    trouble: str = ""


class WorkerLog(Message, frozen=True):
    """`stream` is 1 for stdout and 2 for stderr; `input` is 0 outside of an input."""

    input: int
    stream: int
    data: bytes


class InputYielded(Message, frozen=True):
    """One item of a generator; `InputSucceeded` with an empty payload ends it. `item` counts from 0."""

    input: int
    item: int
    payload: bytes


# A generator waits when its caller has so many items, or bytes of items, still to take.
ITEMS_AHEAD_MAX, ITEM_BYTES_AHEAD_MAX = 64, 64 << 20


class PiecesTaken(Message, frozen=True):
    """So many bytes of a request's pieces were taken: `wire.web.AHEAD_BYTES_MAX` more may come."""

    input: int
    bytes: int


class InputSucceeded(Message, frozen=True):
    """`cpu_us` is this worker's processor time for the input (its own word, an upper bound is checked by the node)."""

    input: int
    payload: bytes
    cpu_us: int = 0


class InputRaised(Message, frozen=True):
    input: int
    exception: RemoteException
    cpu_us: int = 0


class InputRefused(Message, frozen=True):
    """The input could not be run, or its result not be pickled: an error of Potluck's own tree."""

    input: int
    failure: Failure
    cpu_us: int = 0


class MountAsked(Message, frozen=True):
    """Something is to be done with a volume that the worker's node has mounted: an encoded `wire.volumes.MountRequest`.
    Answered by `StateTold`; the numbers are those of `StateAsked`."""

    number: int
    payload: bytes


ToZygote = StartZygote | SpawnWorker | KillWorker | InterruptWorker | ExecCommand
FromZygote = ZygoteReady | ZygoteFailed | WorkerSpawned | WorkerExited
ToWorker = RunInput | RunBatch | ItemsTaken | InputPiece | StopInput | StopWorker | StateTold
FromWorker = (
    WorkerReady
    | WorkerLog
    | InputYielded
    | PiecesTaken
    | InputSucceeded
    | InputRaised
    | InputRefused
    | StateAsked
    | StateDropped
    | MountAsked
)
