"""Clients (SDK, command line, terminal) ↔ local node, over its Unix socket.

A client says `Hello` and is answered with `Welcome` or `Refusal`. Calls are streamed under the call's own number; the
rest are questions with a number and one answer. Numbers are the client's and live as long as its connection.
"""

from __future__ import annotations

import msgspec

from potluck.wire.accounts import QuotaQuestion, QuotaReply
from potluck.wire.apps import AppQuestion, AppReply, WantFunction, WorkerQuestion
from potluck.wire.audit import AuditQuestion, AuditReply
from potluck.wire.bench import BenchDone, RunBench
from potluck.wire.common import Failure, FunctionSpec, Limit, Message, RemoteException, Scaling
from potluck.wire.doctor import AskReach, ReachReport
from potluck.wire.doings import AskMeshDoings, MeshDoings
from potluck.wire.history import HistoryQuestion, HistoryReply
from potluck.wire.offer import GpuOffer, Score
from potluck.wire.pins import PinImage
from potluck.wire.policy import PolicyQuestion, PolicyReply, Reason
from potluck.wire.secrets import SecretQuestion, SecretReply
from potluck.wire.spawned import SpawnQuestion, SpawnReply
from potluck.wire.state import AskState, LeaveState, StateAnswered
from potluck.wire.tokens import TokenQuestion, TokenReply
from potluck.wire.verify import JudgeResults, ResultsJudged, StrangerQuestion, StrangerReply, Verification
from potluck_images.definition import ImageDefinition
from potluck_images.keep_facts import Change, ImageDetails, Pruned
from potluck_images.keep_facts import ImageFacts as ImageFacts
from potluck_images.keep_facts import StoreFacts as StoreFacts

# Inputs of one call that a client may have sent without having been given their outcome. Bounds what the node holds.
INPUTS_AHEAD_MAX = 1024


class Hello(Message, frozen=True):
    """With `descriptors`, the client takes large payloads in sealed memory (`potluck.frames`)."""

    protocol: int
    version: str
    client: str = ""
    descriptors: bool = False


class BuildImage(Message, frozen=True):
    """Build, or find built, an image. Answered by `ImageBuilt`; `Progress` may come before.

    `secrets` are the values of those that steps name, by the number of the step from 0. `on` is the name or id of the
    peer that is to build it, "" for the node itself.
    """

    question: int
    definition: ImageDefinition
    secrets: dict[int, dict[str, str]] = msgspec.field(default_factory=dict)
    on: str = ""

    def __repr__(self) -> str:
        """Without the secrets, for logs."""
        return f"BuildImage({self.question}, {self.definition})"


class OpenCall(Message, frozen=True):
    """A `limit` takes the place of the function's own. With `verify`, results of strangers are checked as it says."""

    call: int
    function: FunctionSpec
    limit: Limit | None = None
    verify: Verification | None = None


class CallInput(Message, frozen=True):
    """`payload` is the pickled `(args, kwargs)`; `index` counts from 0."""

    call: int
    index: int
    payload: bytes


class ItemsTaken(Message, frozen=True):
    """So many items of a generator were taken; sent once for every few."""

    call: int
    index: int
    items: int


class EndInputs(Message, frozen=True):
    """No more inputs come for this call."""

    call: int


class CancelCall(Message, frozen=True):
    call: int
    reason: str


class AskStatus(Message, frozen=True):
    question: int


class AskJournal(Message, frozen=True):
    """Journal entries as they were signed, from the one behind number `after` on. Answered by `JournalAnswer`."""

    question: int
    after: int = 0


class Pause(Message, frozen=True):
    """Take no new work; with `now`, end what runs too. For `seconds`; 0 means until `Resume`."""

    question: int
    reason: str = "paused by the owner"
    now: bool = False
    seconds: float = 0.0


class Resume(Message, frozen=True):
    question: int


class StopNode(Message, frozen=True):
    """End the node; what it runs for others is cancelled, and their nodes are told."""

    question: int


class Welcome(Message, frozen=True):
    protocol: int
    version: str
    peer: str
    name: str
    mesh: str
    pid: int


class Refusal(Message, frozen=True):
    """The question (or, with 0, the connection) failed."""

    question: int
    failure: Failure


class Done(Message, frozen=True):
    question: int


class Progress(Message, frozen=True):
    """What happens meanwhile, in words."""

    question: int
    text: str


class ImageBuilt(Message, frozen=True):
    """`image` is the image id; `python` the "major.minor" inside."""

    question: int
    image: str
    python: str


class CallNotice(Message, frozen=True):
    """`state` is queued, placed, leased or running; `text` says what is waited for."""

    call: int
    state: str
    text: str


class CallLog(Message, frozen=True):
    call: int
    index: int
    worker: str
    stream: int
    data: bytes


class CallItem(Message, frozen=True):
    """One item that a generator yielded; `item` counts from 0. `CallOutcome` ends them."""

    call: int
    index: int
    item: int
    payload: bytes


class CallOutcome(Message, frozen=True):
    """The one outcome of an input; exactly one of the three is set."""

    call: int
    index: int
    payload: bytes | None = None
    exception: RemoteException | None = None
    failure: Failure | None = None


class WorkerStatus(msgspec.Struct, frozen=True, array_like=True):
    """`state` is starting, idle or running; `since_us` when that began."""

    worker: str
    function: str
    caller: str
    state: str
    since_us: int


class AskStats(Message, frozen=True):
    """Answered by `Stats`."""

    question: int
    function: FunctionSpec


class Stats(Message, frozen=True):
    """Inputs that wait for a worker, and workers that run or are warm, as the caller's node knows them."""

    question: int
    backlog: int
    runners: int


class SetScaling(Message, frozen=True):
    """From now on, for all calls of the function from this node. Answered by `Done`."""

    question: int
    function: FunctionSpec
    scaling: Scaling


class KeepFunction(Message, frozen=True):
    """While this connection lasts, keep as many workers as `function.scaling` says. Answered by `Done`."""

    question: int
    function: FunctionSpec


class CallStatus(msgspec.Struct, frozen=True, array_like=True):
    """`would` has a line for each peer: why it runs the call, or does not."""

    call: str
    function: str
    inputs: int
    waiting: int
    note: str
    would: tuple[str, ...] = ()
    app: str = ""


class PeerStatus(msgspec.Struct, frozen=True, array_like=True):
    """`note` says why the peer is not used, if so. `rtt_us` is 0 while unknown."""

    peer: str
    name: str
    state: str
    connected: bool
    slots_free: int
    cpu_milli: int
    memory_mib: int
    gpus: tuple[str, ...] = ()
    rtt_us: int = 0
    note: str = ""
    # Entries of its journal that are known to be one chain.
    entries: int = 0
    scores: tuple[Score, ...] = ()
    # Images that it holds, and functions that are warm there, as it says.
    images: int = 0
    warm: int = 0


class AccountStatus(msgspec.Struct, frozen=True, array_like=True):
    peer: str
    given_us: int
    used_us: int
    inputs_given: int
    inputs_used: int


class Status(Message, frozen=True):
    """All that a terminal shows. Times are Unix microseconds; `warning` is what the owner should mend."""

    question: int
    name: str
    peer: str
    version: str
    mesh: str
    now_us: int
    started_us: int
    offering: bool
    paused: str
    tier: str
    addresses: tuple[str, ...] = ()
    cpu_milli: int = 0
    cpu_free_milli: int = 0
    memory_mib: int = 0
    memory_free_mib: int = 0
    gpus: tuple[GpuOffer, ...] = ()
    workers: tuple[WorkerStatus, ...] = ()
    calls: tuple[CallStatus, ...] = ()
    peers: tuple[PeerStatus, ...] = ()
    accounts: tuple[AccountStatus, ...] = ()
    entries: int = 0
    images: int = 0
    store_bytes: int = 0
    warning: str = ""
    embedded: bool = False
    # The peer id of the key of a private mesh.
    mesh_id: str = ""
    scores: tuple[Score, ...] = ()
    # Why the machine, or one of its GPUs, does not work now.
    policy: tuple[Reason, ...] = ()


# Entries of one answer: a page has at most 1 MiB.
JOURNAL_PAGE = 1000


class JournalAnswer(Message, frozen=True):
    """`records` are pairs: the envelope of an entry, and that of what it records. None are left without `more`.
    `witnessed` is the last checkpoint that witnesses cosigned."""

    question: int
    owner: str
    records: tuple[tuple[bytes, bytes], ...]
    more: bool = False
    witnessed: bytes = b""


class AskImages(Message, frozen=True):
    """All images on the node, and what the store takes."""

    question: int


class Images(Message, frozen=True):
    question: int
    images: tuple[ImageFacts, ...]
    store: StoreFacts


class AskImage(Message, frozen=True):
    """One image, by id, the first digits of it, or label."""

    question: int
    image: str


class ImageAnswer(Message, frozen=True):
    question: int
    details: ImageDetails


class AskImageDiff(Message, frozen=True):
    question: int
    old: str
    new: str


class ImageChanges(Message, frozen=True):
    """At most `CHANGES_MAX` changes; `left_out` counts the rest."""

    question: int
    changes: tuple[Change, ...]
    left_out: int = 0


class PruneImages(Message, frozen=True):
    """Remove the named images and those not used for `unused_s` seconds (0: all, negative: none), but none in use; also
    chunks that no image needs. `Progress` may come before `ImagesPruned`."""

    question: int
    images: tuple[str, ...] = ()
    unused_s: int = -1


class ImagesPruned(Message, frozen=True):
    question: int
    pruned: Pruned


class VerifyImages(Message, frozen=True):
    """Read and check every chunk; with `repair`, fetch what went bad from peers."""

    question: int
    repair: bool = False


class ImagesVerified(Message, frozen=True):
    """Chunks read and found bad; images that lack chunks now, and those that were repaired."""

    question: int
    chunks: int
    bad: int
    damaged: tuple[str, ...] = ()
    repaired: tuple[str, ...] = ()


class PullImage(Message, frozen=True):
    """Fetch an image by its id from peers, or by an OCI reference from a registry. Answered by `ImageBuilt`."""

    question: int
    reference: str


class PushImage(Message, frozen=True):
    """Upload an image to an OCI registry. Answered by `ImagePushed`."""

    question: int
    image: str
    reference: str


class ImagePushed(Message, frozen=True):
    """`digest` is that of the OCI manifest, "sha256:…"."""

    question: int
    digest: str


class ExportImage(Message, frozen=True):
    """Write an image as an OCI archive to `path`, absolute, on this machine. Answered by `Done`."""

    question: int
    image: str
    path: str


# Files that differ between two images, in one answer; a whole distribution has some 100,000.
CHANGES_MAX = 100_000

ImageQuestion = (
    AskImages | AskImage | AskImageDiff | PruneImages | VerifyImages | PullImage | PushImage | ExportImage | PinImage
)
ImageReply = Images | ImageAnswer | ImageChanges | ImagesPruned | ImagesVerified | ImagePushed

ToNode = (
    Hello
    | BuildImage
    | OpenCall
    | CallInput
    | ItemsTaken
    | EndInputs
    | CancelCall
    | AskStatus
    | AskJournal
    | Pause
    | Resume
    | StopNode
    | ImageQuestion
    | SpawnQuestion
    | AskStats
    | SetScaling
    | KeepFunction
    | AppQuestion
    | WorkerQuestion
    | SecretQuestion
    | AskState
    | LeaveState
    | TokenQuestion
    | QuotaQuestion
    | RunBench
    | AuditQuestion
    | AskMeshDoings
    | PolicyQuestion
    | HistoryQuestion
    | ResultsJudged
    | StrangerQuestion
    | AskReach
)
FromNode = (
    Welcome
    | Refusal
    | Done
    | Progress
    | ImageBuilt
    | CallNotice
    | CallLog
    | CallItem
    | CallOutcome
    | Status
    | JournalAnswer
    | ImageReply
    | SpawnReply
    | Stats
    | AppReply
    | WantFunction
    | SecretReply
    | StateAnswered
    | TokenReply
    | QuotaReply
    | BenchDone
    | AuditReply
    | MeshDoings
    | PolicyReply
    | HistoryReply
    | JudgeResults
    | StrangerReply
    | ReachReport
)
