"""What several protocols share: the base struct, functions, failures, and the one door for decoding."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Hashable
from types import UnionType
from typing import Any, TypeVar, cast, overload

import msgspec

from potluck.errors import Error, RemoteProtocolError, from_kind

# Raised when a message changes in a way that an older peer cannot read. Both sides name theirs in their first message.
# 2: payloads over 256 KiB travel in memory of their own, or in segments ahead of their message, and receipts count
# their digests. 3: keys instead of ids in what is signed, and entries that hold digests.
PROTOCOL = 3

# Arguments and results of one input, in bytes, after pickling. Above this, data belongs in a volume or an image.
PAYLOAD_BYTES_MAX = 2 << 30


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of all messages: msgpack arrays headed by the class name."""


class Failure(Message, frozen=True):
    """An `Error` on its way to another process."""

    kind: str
    what: str
    why: str = ""
    fix: str = ""

    @classmethod
    def of(cls, error: Error) -> Failure:
        return cls(error.kind, error.what, error.why, error.fix)

    def error(self) -> Error:
        return from_kind(self.kind, self.what, why=self.why, fix=self.fix)


class RemoteException(Message, frozen=True):
    """An exception that the user's function raised.

    `pickled` is empty when the exception could not be pickled, or was to be plain: then `arguments` are its own, and
    its attributes, as data (`potluck.plain`), if they can be. `traceback` is text with the source lines shown.
    """

    type_name: str
    message: str
    traceback: str
    pickled: bytes = b""
    arguments: bytes = b""


class Resources(msgspec.Struct, frozen=True, array_like=True):
    """What one worker needs. `gpu` lists acceptable requests, the preferred first, as Modal writes them: "H100:2".

    `scratch_mib` is the room for files that it writes; 0 leaves it to the node.
    """

    gpu: tuple[str, ...] = ()
    cpu_milli: int = 1000
    memory_mib: int = 512
    scratch_mib: int = 0


class RetryPolicy(msgspec.Struct, frozen=True, array_like=True):
    """Retries after an exception or a timeout. A lost machine is always retried, whatever this says."""

    max_retries: int = 0
    initial_delay_us: int = 1_000_000
    backoff_milli: int = 2000
    max_delay_us: int = 60_000_000


class Scaling(msgspec.Struct, frozen=True, array_like=True):
    """How many workers a caller wants over all peers; 0 leaves each to the nodes.

    `scaledown_us` is how long an idle worker is kept. `single_use` ends each worker after one input.
    """

    min_containers: int = 0
    max_containers: int = 0
    buffer_containers: int = 0
    scaledown_us: int = 0
    single_use: bool = False


class Sharing(msgspec.Struct, frozen=True, array_like=True):
    """How many inputs one worker has at once: `target_inputs` (0: as `max_inputs`) is what a new worker is started at.

    With a `batch_size` above 0, inputs are gathered for at most `batch_wait_us` and given to the function as lists.
    """

    max_inputs: int = 1
    target_inputs: int = 0
    batch_size: int = 0
    batch_wait_us: int = 0


class Web(msgspec.Struct, frozen=True, array_like=True):
    """How a function answers requests: `kind` is asgi, wsgi, fastapi or server (`potluck.web`).

    `label` is its part of the URL. `method` and `docs` are for fastapi; `port`, and how long it may take to open that
    (`startup_us`), for server. `private` asks callers for a token. Where the function is a
    class, `attribute` is the method of its object.
    """

    kind: str
    label: str
    method: str = "GET"
    docs: bool = False
    private: bool = False
    port: int = 0
    startup_us: int = 0
    attribute: str = ""


class VolumeMount(msgspec.Struct, frozen=True, array_like=True):
    """A volume, by its id, as a function finds it at `path`; of `sub_path`, if given, that folder alone."""

    path: str
    id: str
    name: str = ""
    read_only: bool = False
    sub_path: str = ""


class Limit(msgspec.Struct, frozen=True, array_like=True):
    """What all calls with the limit `name` may use together, each call alone where it has no name: microseconds of
    workers, and of cost (microseconds times the weight of where they ran); 0 means no limit."""

    name: str
    lease_us: int = 0
    cost: int = 0


class FunctionSpec(msgspec.Struct, frozen=True, array_like=True):
    """One function as a provider needs to know it.

    Either `module` and `qualname` (its source is a layer of the image) or `pickled` (cloudpickle) refers to it.
    `image` is the image id in hex. `python` is the caller's "major.minor", which must be the image's.
    `tier` is the weakest sandbox that the caller accepts (`potluck.tiers`); empty means any.
    `network` lists the names of hosts that it may reach (`potluck.network`); empty means none.
    `parameters` are those of a class: a packed list of pairs. It is not empty, if only of a list, where the spec refers
    to a class instead of a function; an input then has the method's name in front of its arguments.
    `generator` functions (or methods) may yield; `snapshot` lets the state after loading be kept between workers.
    `region` (any of them) and `labels` (all of them) are what a peer must say of itself.
    `secrets` are environment variables that are in no identity, log or status; `salt` changes with them.
    `volumes` are mounted for each worker apart, by peers that are trusted alone.
    With `web`, its inputs are requests (`potluck.wire.web`), and it runs none twice once it has begun.
    `level` counts the inputs of the same function that wait for this one: each level has workers of its own.
    `writable` asks for a root that can be written to, by each worker apart.
    `limit` is kept by the caller's node, and sent to nobody.
    """

    app: str
    name: str
    image: str
    python: str
    module: str = ""
    qualname: str = ""
    pickled: bytes = b""
    resources: Resources = Resources()
    timeout_us: int = 300_000_000
    retries: RetryPolicy = RetryPolicy()
    env: tuple[tuple[str, str], ...] = ()
    imports: tuple[str, ...] = ()
    tier: str = ""
    network: tuple[str, ...] = ()
    parameters: bytes = b""
    scaling: Scaling = Scaling()
    sharing: Sharing = Sharing()
    generator: bool = False
    snapshot: bool = False
    startup_timeout_us: int = 0
    region: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    secrets: tuple[tuple[str, str], ...] = ()
    salt: bytes = b""
    web: Web | None = None
    level: int = 0
    volumes: tuple[VolumeMount, ...] = ()
    writable: bool = False
    limit: Limit | None = None

    def __repr__(self) -> str:
        """Without the secrets, for logs."""
        return f"FunctionSpec({self.app}/{self.name}, image={self.image[:12]})"


T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()


@functools.cache
def _decoder(kind: Hashable) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(cast(Any, kind))


def encode(message: msgspec.Struct) -> bytes:
    """Encode any struct of this package."""
    return _encoder.encode(message)


@overload
def decode(data: bytes, kind: type[T]) -> T: ...
@overload
def decode(data: bytes, kind: UnionType) -> Any: ...
def decode(data: bytes, kind: Any) -> Any:
    """Decode `data` as `kind` (a struct or a union of them). Raises `RemoteProtocolError` when it is anything else."""
    try:
        message = _decoder(kind).decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(
            "The other side sent a message that this version does not understand.",
            why=str(error),
            fix="Compare `potluck --version` on both sides and upgrade the older one.",
        ) from None
    return message


def function_id(spec: FunctionSpec) -> str:
    """The identity under which workers of this very function are kept warm: 32 hex digits.

    How many there are to be is no part of it, nor what they may use. Nor are secrets, which a hash that everybody sees
    would betray.
    """
    same = msgspec.structs.replace(spec, scaling=Scaling(), secrets=())
    values = [getattr(same, name) for name in same.__struct_fields__ if name != "limit"]
    return hashlib.sha256(_encoder.encode(values)).hexdigest()[:32]
