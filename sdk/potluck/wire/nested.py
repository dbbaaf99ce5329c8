"""Calls from inside a function: what a worker asks of its caller's node, which places the calls in its owner's name.

Carried as the payload of `StateAsked` with `about` set to `CALLS`; the answer, one encoded `NestedAnswer`, comes back
the same way. Calls that are spawned are asked for with the questions of `wire.spawned`, whose number is 0 here.
"""

from __future__ import annotations

import msgspec

from potluck.wire.apps import MethodFacts, ParameterFacts
from potluck.wire.common import Failure, Limit, Message, RemoteException
from potluck.wire.spawned import AddSpawned, AskSpawned, AwaitOutcome, CancelSpawned, Spawned, SpawnedOutcome

# `StateAsked.about`.
CALLS = "calls"
# Functions that wait for each other. Each level has workers of its own, of which a node keeps 16 kinds.
DEPTH_MAX = 8
# Arguments of one input, and its result: both travel inside of a request, and are held whole at each hop. Bytes.
NESTED_BYTES_MAX = 100 << 20
# Calls that one lease may have open, and inputs of these without an outcome: as a client's for one call.
CALLS_MAX, INPUTS_MAX = 1024, 1024
# One answer has so many outcomes or items, and so many bytes of them, unless the first alone has more.
ANSWER_OUTCOMES, ANSWER_BYTES = 64, 4 << 20


class Callee(Message, frozen=True):
    """A function or class of the worker's own app, or with `found` of one that is deployed or served under this name.
    `parameters` are those of an object, packed; empty for a function."""

    app: str
    name: str
    parameters: bytes = b""
    found: bool = False


class AskCallee(Message, frozen=True):
    """Answered by `CalleeFacts`."""

    callee: Callee


class CallOnce(Message, frozen=True):
    """One input of a function that is no generator; waits for its outcome. A `limit` counts beside the function's own.
    Answered by `NestedOutcome`."""

    callee: Callee
    payload: bytes
    limit: Limit | None = None


class AddInputs(Message, frozen=True):
    """Further inputs of a call, or with `callee` the first of a new one, which may have a `limit`, as `CallOnce` has.
    Answered by `Opened`."""

    call: int
    payloads: tuple[bytes, ...]
    last: bool = False
    callee: Callee | None = None
    limit: Limit | None = None


class TakeSome(Message, frozen=True):
    """Waits for outcomes. Answered by `Some`."""

    call: int


class TakeItems(Message, frozen=True):
    """Waits for items of a generator, of which `items` were taken, or its outcome. Answered by `Some`."""

    call: int
    items: int


class CloseCall(Message, frozen=True):
    """Nobody wants more of this call: what runs for it is cancelled. Answered by `Opened`."""

    call: int


class SpawnNested(Message, frozen=True):
    """As `wire.spawned.SpawnCall`. Answered by `Spawned`."""

    callee: Callee
    payloads: tuple[bytes, ...]
    more: bool = False


class CalleeFacts(Message, frozen=True):
    """As `wire.apps.NamedFunction`, without what is needed to run it."""

    generator: bool = False
    web: bool = False
    methods: tuple[MethodFacts, ...] = ()
    parameters: tuple[ParameterFacts, ...] = ()


class NestedOutcome(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The outcome of one input; exactly one of the three is set."""

    index: int
    payload: bytes | None = None
    exception: RemoteException | None = None
    failure: Failure | None = None


class Opened(Message, frozen=True):
    """The number of a call."""

    call: int


class Some(Message, frozen=True):
    """What has come: items of a generator before its outcome."""

    items: tuple[bytes, ...] = ()
    outcomes: tuple[NestedOutcome, ...] = ()


NestedRequest = (
    AskCallee
    | CallOnce
    | AddInputs
    | TakeSome
    | TakeItems
    | CloseCall
    | SpawnNested
    | AddSpawned
    | AskSpawned
    | AwaitOutcome
    | CancelSpawned
)
NestedAnswer = CalleeFacts | NestedOutcome | Opened | Some | Spawned | SpawnedOutcome
# Of these the worker does nothing until the answer comes.
WAITING = (CallOnce, TakeSome, TakeItems, AwaitOutcome)
