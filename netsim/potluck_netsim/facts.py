"""What a checker can see: facts as a user would put them, not the state inside of the cores."""

from __future__ import annotations

from dataclasses import dataclass

from potluck.wire import Failure, RemoteException
from potluck_ledger.entries import Receipt
from potluck_netsim.world import Fact
from potluck_node.core.receipts import CallerMeter


@dataclass(frozen=True, slots=True)
class CallPlaced(Fact):
    node: str
    call: str


@dataclass(frozen=True, slots=True)
class InputGiven(Fact):
    """`payload` says what the function will do with it, see `workload.py`."""

    node: str
    call: str
    index: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Delivered(Fact):
    """One outcome reached whoever placed the call."""

    node: str
    call: str
    index: int
    payload: bytes | None
    exception: RemoteException | None
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class CallOver(Fact):
    node: str
    call: str


@dataclass(frozen=True, slots=True)
class CallDropped(Fact):
    """Whoever placed the call cancelled it."""

    node: str
    call: str


@dataclass(frozen=True, slots=True)
class Verdict(Fact):
    """A caller's node found a peer's result right, wrong or undecided, and perhaps bans it."""

    node: str
    peer: str
    verdict: str
    kind: str
    banned: bool


@dataclass(frozen=True, slots=True)
class NodeDied(Fact):
    """The node and everything that it only had in memory, its calls among them."""

    node: str


@dataclass(frozen=True, slots=True)
class DiskFull(Fact):
    """A node can keep nothing for a while."""

    node: str


@dataclass(frozen=True, slots=True)
class NodeFroze(Fact):
    """It does nothing for a while: the machine sleeps, or swaps."""

    node: str


@dataclass(frozen=True, slots=True)
class LeaseWanted(Fact):
    """Of a peer (its id), whose offer is good for so long yet by the asker's clock; `secret` says whether the function
    has secrets, `trusted` whether the asker trusts that peer."""

    node: str
    peer: str
    function: str
    fresh_us: int = 1
    secret: bool = False
    trusted: bool = True


@dataclass(frozen=True, slots=True)
class Observed(Fact):
    """How much a node holds, at some moment."""

    node: str
    leases_taken: int
    leases_given: int
    pools: int
    waiting: int
    offers: int


@dataclass(frozen=True, slots=True)
class StillBanned(Fact):
    """At the end, a node does nothing with a peer (its id), and why."""

    node: str
    peer: str
    why: str


@dataclass(frozen=True, slots=True)
class Ticked(Fact):
    """A core was woken because it asked to be."""

    node: str
    core: str


@dataclass(frozen=True, slots=True)
class WorkersChanged(Fact):
    """Processes of workers on a machine, in sum: what they may use, and what the owner lends."""

    node: str
    workers: int
    cpu_milli: int
    memory_mib: int
    lent_cpu_milli: int
    lent_memory_mib: int


@dataclass(frozen=True, slots=True)
class GpusChanged(Fact):
    """The GPUs in use by sandboxes of a machine: one entry for each use."""

    node: str
    gpus: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReceiptChecked(Fact):
    """A caller looked at a provider's receipt; `objection` is why it would not sign."""

    node: str
    provider: str
    receipt: Receipt
    objection: str
    meter: CallerMeter


@dataclass(frozen=True, slots=True)
class VoucherChecked(Fact):
    """A side of a lease looked at a voucher; `objection` is why it does not take it."""

    node: str
    other: str
    objection: str
    lease_us: int = 0


@dataclass(frozen=True, slots=True)
class Used(Fact):
    """A worker of a machine was busy with inputs of a caller (a peer id) until now; with GPUs or without."""

    node: str
    caller: str
    worker: str
    gpus: tuple[str, ...]
    began_us: int
    cpu_milli: int = 1000


@dataclass(frozen=True, slots=True)
class Billed(Fact):
    """A provider has settled a lease of a caller (a peer id), for so much."""

    node: str
    caller: str
    lease: str
    lease_us: int
    with_gpus: bool


@dataclass(frozen=True, slots=True)
class Seen(Fact):
    """A lease with a peer (its id) is over: by the caller's own clock at most so much was used."""

    node: str
    peer: str
    bound_us: int


@dataclass(frozen=True, slots=True)
class Kept(Fact):
    """At the end: what a node's journal says of a peer (its id); of `disputed_us` it says itself that too much is
    signed."""

    node: str
    peer: str
    given_us: int
    used_us: int
    unsigned_us: int
    disputed_us: int = 0


@dataclass(frozen=True, slots=True)
class Reckoned(Fact):
    """Every node's journal was told, as `Kept`."""


@dataclass(frozen=True, slots=True)
class Convicted(Fact):
    """A node has the proof that another keeps two journals, and has banned it."""

    node: str
    peer: str


@dataclass(frozen=True, slots=True)
class Doubted(Fact):
    """A node was told that its own journal is not what it signed."""

    node: str


@dataclass(frozen=True, slots=True)
class Cosigned(Fact):
    """A witness signed a head of an owner's journal."""

    node: str
    owner: str
    sequence: int
    head: bytes


@dataclass(frozen=True, slots=True)
class NotCosigned(Fact):
    node: str
    owner: str
    why: str


@dataclass(frozen=True, slots=True)
class Witnessed(Fact):
    """Enough witnesses signed a head."""

    owner: str
    sequence: int
    head: bytes


@dataclass(frozen=True, slots=True)
class Histories(Fact):
    """At the end: the digests of the entries of each journal that a node kept."""

    node: str
    digests: tuple[frozenset[bytes], ...]


@dataclass(frozen=True, slots=True)
class Quiet(Fact):
    """Faults have ceased, no call was placed since, and there was time enough for everything to end."""


@dataclass(frozen=True, slots=True)
class Leftover(Fact):
    """Something that a node still holds although the mesh is quiet."""

    node: str
    what: str


@dataclass(frozen=True, slots=True)
class RunBegan(Fact):
    """A worker was given inputs of a caller (a peer id)."""

    node: str
    caller: str


@dataclass(frozen=True, slots=True)
class OwnerCame(Fact):
    """Somebody sat down at the machine, whose policy gives what runs so much time."""

    node: str
    grace_us: int


@dataclass(frozen=True, slots=True)
class HeardRevoked(Fact):
    """A node knows from now on that a peer (its id) is no member any more."""

    node: str
    peer: str


@dataclass(frozen=True, slots=True)
class OwnerLeft(Fact):
    node: str
