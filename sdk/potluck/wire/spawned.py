"""Clients ↔ local node: calls that are recorded before they run, and so outlive both. Questions as in `control`."""

from __future__ import annotations

from potluck.wire.common import Failure, FunctionSpec, Message, RemoteException
from potluck.wire.errands import Service
from potluck.wire.verify import Verification

# Results wait so long to be fetched: as Modal's.
RESULTS_US = 7 * 24 * 3600 * 1_000_000
# One message of a spawn carries at most so many bytes of inputs, or one input that is larger.
BATCH_BYTES = 8 << 20
# An input or an outcome that is kept is a cell of a table, of which SQLite takes a thousand million bytes
# (sqlite.org/limits.html); the message around it has some as well.
KEPT_BYTES_MAX = 900 << 20
# Inputs of one call; each is a row on the node's disk.
INPUTS_MAX = 1_000_000


class SpawnCall(Message, frozen=True):
    """Record a call. `payloads` are its first inputs; while `more`, others follow by `AddSpawned`, and it is neither
    run nor kept until the last have come. With a `service` it takes errands; with `verify`, results of strangers are
    checked as it says. Answered by `Spawned`."""

    question: int
    function: FunctionSpec
    payloads: tuple[bytes, ...]
    more: bool = False
    service: Service | None = None
    verify: Verification | None = None


class AddSpawned(Message, frozen=True):
    """Further inputs. Answered by `Spawned`."""

    question: int
    call: str
    payloads: tuple[bytes, ...]
    more: bool = False


class AskSpawned(Message, frozen=True):
    """Answered by `Spawned`, or a refusal when there is no such call."""

    question: int
    call: str


class AwaitOutcome(Message, frozen=True):
    """Wait for one outcome, at most `timeout_us`; negative waits for ever. Answered by `SpawnedOutcome`; to who
    `judges` also by `JudgeSpawned`, when results of the call are to be compared first."""

    question: int
    call: str
    index: int
    timeout_us: int = -1
    judges: bool = False


class CancelSpawned(Message, frozen=True):
    """Inputs that have no outcome yet get one that says `reason`. Answered by `Spawned`."""

    question: int
    call: str
    reason: str


class JudgeSpawned(Message, frozen=True):
    """As `verify.JudgeResults`, of a spawned call. What is said of `number` goes into `SpawnedJudged`; then its
    client asks again for what it waits for."""

    question: int
    call: str
    number: int
    payloads: tuple[bytes, ...]


class SpawnedJudged(Message, frozen=True):
    """As `verify.ResultsJudged`. Of several clients' answers to one `number` the first counts. Answered by
    `Spawned`."""

    question: int
    call: str
    number: int
    agrees: int
    failure: Failure | None = None


class Spawned(Message, frozen=True):
    """`done` of `inputs` have their outcome."""

    question: int
    call: str
    function: str
    inputs: int
    done: int


class SpawnedOutcome(Message, frozen=True):
    """Exactly one of the three is set, or none when the time was over first."""

    question: int
    index: int
    payload: bytes | None = None
    exception: RemoteException | None = None
    failure: Failure | None = None


SpawnQuestion = SpawnCall | AddSpawned | AskSpawned | AwaitOutcome | CancelSpawned | SpawnedJudged
SpawnReply = Spawned | SpawnedOutcome | JudgeSpawned
