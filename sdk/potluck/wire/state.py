"""Shared state: what a program, or a worker through its lease, asks of what is on the owner's node.

A request is one encoded `StateRequest`, carried as the payload of `AskState` (control socket), `StateAsked` (worker and
lease); the answer, one encoded `StateAnswer`, comes back the same way. Whoever passes them on does not look inside.
Keys and values are bytes to the node: a program pickles them, and workers of peers that are not trusted send data.
"""

from __future__ import annotations

from potluck.wire.common import Failure, Message
from potluck.wire.errands import ErrandAnswer, ErrandRequest
from potluck.wire.membership import MeshAnswer, MeshRequest
from potluck.wire.tunnels import TunnelAnswer, TunnelRequest
from potluck.wire.volumes import RenameVolume, VolumeAnswer, VolumeRequest

# As Modal's, where it has a limit. A value of a dict, and all that one request puts, in bytes.
VALUE_BYTES_MAX = 100 << 20
# One encoded request: what it puts, with keys.
REQUEST_BYTES_MAX = VALUE_BYTES_MAX + (64 << 20)
# A key names a value; what is longer is data. Bytes, encoded.
KEY_BYTES_MAX = 64 << 10
# Entries of one `update`; as Modal's.
UPDATE_MAX = 10_000
# Entries of a dict: what `len` counts, and pages go through, in seconds.
ENTRIES_MAX = 1_000_000
# Of a queue, as Modal's: an item, a partition's items and bytes, partitions that hold any, bytes of a partition's name.
ITEM_BYTES_MAX = 1 << 20
ITEMS_MAX, PARTITION_BYTES_MAX = 5000, 64 << 20
PARTITIONS_MAX, PARTITION_NAME_MAX = 100_000, 64
# How long a partition lives after the last put at most, and by default, seconds; as Modal's: 24 hours.
TTL_S_MAX = 24 * 3600
# Dicts and queues of one node or database; each is a row, and looking for a name is one of an index.
HOLDERS_MAX = 10_000
# Of these, names that one app's workers on peers that are not trusted may make or be given, and unnamed ones of one
# program or lease.
APP_NAMES_MAX, UNNAMED_MAX = 100, 1000
NAME_MAX = 64
# What one page of an iteration carries, unless its first entry alone is larger.
PAGE_BYTES, PAGE_ITEMS = 1 << 20, 1000
# What items that are taken together have at most, unless the first alone is larger.
TAKEN_BYTES = 16 << 20

DICT, QUEUE = "dict", "queue"


class Open(Message, frozen=True):
    """The dict or queue of this name, made if `create`; without a name, one that lives as long as whoever asks.
    With `new` a name that is taken is refused. Answered by `Holder`."""

    kind: str
    name: str = ""
    create: bool = False
    new: bool = False


class Find(Message, frozen=True):
    """By its id. Answered by `Holder`."""

    kind: str
    id: str


class Delete(Message, frozen=True):
    """Of this id, or name. Answered by `Yes`, or no where there was none."""

    kind: str
    id: str = ""
    name: str = ""


class ListHolders(Message, frozen=True):
    """All named ones, the newest first, made before a time (Unix microseconds; 0: any). Answered by `Holders`."""

    kind: str
    before_us: int = 0
    most: int = HOLDERS_MAX


class Grant(Message, frozen=True):
    """Workers of `app` may from now on open this name, also on peers that are not trusted. Answered by `Yes`."""

    kind: str
    name: str
    app: str


class Get(Message, frozen=True):
    """Answered by `Values` of one, or none."""

    id: str
    key: bytes


class Has(Message, frozen=True):
    """Answered by `Yes`."""

    id: str
    key: bytes


class Put(Message, frozen=True):
    """Each value under its key; with `new`, only where nothing is. `Yes` says whether anything was put."""

    id: str
    keys: tuple[bytes, ...]
    values: tuple[bytes, ...]
    new: bool = False


class Pop(Message, frozen=True):
    """Take an entry out. Answered by `Values` of one, or none."""

    id: str
    key: bytes


class Entries(Message, frozen=True):
    """The entries after a key, in the order of their keys. Without `values` only keys are sent. Answered by `Page`."""

    id: str
    after: bytes | None = None
    values: bool = True


class Count(Message, frozen=True):
    """Entries of a dict; items of a queue's partition, or with `total` of all. Answered by `Counted`."""

    id: str
    partition: str = ""
    total: bool = False


class Clear(Message, frozen=True):
    """Remove the entries of a dict, or the items of a partition, or of `all`. Answered by `Yes`."""

    id: str
    partition: str = ""
    all: bool = False


class Enqueue(Message, frozen=True):
    """Append items, all or none. Waits at most `wait_us` for room (negative: for ever); then `Yes` says whether it was
    done. The partition is forgotten `ttl_s` after the last of these."""

    id: str
    values: tuple[bytes, ...]
    partition: str = ""
    ttl_s: int = TTL_S_MAX
    wait_us: int = 0


class Dequeue(Message, frozen=True):
    """Take at most `most` items out. Waits at most `wait_us` for the first (negative: for ever). Answered by
    `Values`."""

    id: str
    partition: str = ""
    most: int = 1
    wait_us: int = 0


class Peek(Message, frozen=True):
    """Items after the one of number `after`, which stay. Waits as `Dequeue`. Answered by `Page`."""

    id: str
    partition: str = ""
    after: int = 0
    wait_us: int = 0


class Holder(Message, frozen=True):
    """A dict or queue. Whoever knows the id can use it."""

    kind: str
    id: str
    name: str
    created_us: int


class Holders(Message, frozen=True):
    holders: tuple[Holder, ...]


class Yes(Message, frozen=True):
    yes: bool = True


class Values(Message, frozen=True):
    values: tuple[bytes, ...] = ()


class Counted(Message, frozen=True):
    count: int


class Page(Message, frozen=True):
    """Of a dict its `keys`, and `values` if asked for; of a queue its values, `last` being the number of the last."""

    keys: tuple[bytes, ...] = ()
    values: tuple[bytes, ...] = ()
    more: bool = False
    last: int = 0


StoredRequest = (
    Open
    | Find
    | Delete
    | ListHolders
    | Grant
    | Get
    | Has
    | Put
    | Pop
    | Entries
    | Count
    | Clear
    | Enqueue
    | Dequeue
    | Peek
    | RenameVolume
)
StoredAnswer = Holder | Holders | Yes | Values | Counted | Page | VolumeAnswer
# With what is only passed on.
StateRequest = StoredRequest | VolumeRequest | ErrandRequest | TunnelRequest | MeshRequest
StateAnswer = StoredAnswer | ErrandAnswer | TunnelAnswer | MeshAnswer


class AskState(Message, frozen=True):
    """Client to local node. Answered by `StateAnswered`, or a refusal."""

    question: int
    payload: bytes


class LeaveState(Message, frozen=True):
    """Nobody waits for this question any more: what it would take out stays. There is no answer."""

    question: int


class StateAnswered(Message, frozen=True):
    question: int
    payload: bytes


# Requests of one worker without an answer; each may hold a few KiB of the node, and waits in a thread of its own there.
ASKS_MAX = 1024


class StateAsked(Message, frozen=True):
    """Worker to its node (`number` is the worker's own), and provider to caller on a lease (`number` is the
    provider's). `input` is that for which it asks, 0 if that is not known, as the one who reads this counts it.

    `about` is empty for shared state, or `wire.nested.CALLS`; with `waits`, the input does nothing until the answer.
    With `streams`, what it waits for may wait for it in turn, so that it must go on at once."""

    number: int
    payload: bytes
    input: int = 0
    about: str = ""
    waits: bool = False
    streams: bool = False


class StateDropped(Message, frozen=True):
    """Whoever asked is gone, or waits no longer."""

    number: int


class StateTold(Message, frozen=True):
    """The answer to `StateAsked`, or why there is none."""

    number: int
    payload: bytes = b""
    failure: Failure | None = None
