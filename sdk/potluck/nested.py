"""Calls from inside a function: what stands for the connection to the local node in a worker, which asks its caller's
node through the runner. Methods are written once, as steps that yield requests, and driven blocking or awaiting."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar, cast

from potluck import asking, wire
from potluck.errors import Error, InvalidError
from potluck.options import limited
from potluck.wire.common import Limit
from potluck.wire.control import CallOutcome
from potluck.wire.nested import (
    CALLS,
    INPUTS_MAX,
    NESTED_BYTES_MAX,
    WAITING,
    AddInputs,
    AskCallee,
    Callee,
    CalleeFacts,
    CallOnce,
    CloseCall,
    NestedAnswer,
    NestedOutcome,
    NestedRequest,
    Opened,
    Some,
    SpawnNested,
    TakeItems,
    TakeSome,
)
from potluck.wire.spawned import SpawnCall

if TYPE_CHECKING:
    from potluck.functions import Function
    from potluck.options import Most
    from potluck.verify import Prepared

T = TypeVar("T")
Steps = Generator[NestedRequest, Any, T]

# Inputs of a map are sent together, as long as that holds none of them up: so many, or bytes, or after so many seconds.
BATCH_INPUTS, BATCH_BYTES, BATCH_S = 32, 1 << 20, 0.005
# As in `found`: another may be deployed meanwhile.
FRESH_S = 1.0


def drive(steps: Steps[T]) -> T:
    """Ask, wait, go on."""
    try:
        request = next(steps)
        while True:
            try:
                answer = asking._ask_caller(*_asked(request))
            except Error as error:
                request = steps.throw(error)
            else:
                request = steps.send(wire.decode(answer, NestedAnswer))
    except StopIteration as stop:
        return cast(T, stop.value)


async def drive_async(steps: Steps[T]) -> T:
    """As `drive`, without blocking the event loop."""
    try:
        request = next(steps)
        while True:
            try:
                answer = await asking._ask_caller_async(*_asked(request))
            except Error as error:
                request = steps.throw(error)
            else:
                request = steps.send(wire.decode(answer, NestedAnswer))
    except StopIteration as stop:
        return cast(T, stop.value)


def _asked(request: NestedRequest) -> tuple[bytes, str, bool, bool]:
    """As `wire.state.StateAsked`."""
    return wire.encode(request), CALLS, isinstance(request, WAITING), isinstance(request, TakeItems)


class NestedCall:
    """As `session.Call`. `number` is 0 until the node knows it; a single input is kept until its outcome is wanted."""

    def __init__(self, callee: Callee, limit: Limit | None) -> None:
        self.callee, self.limit, self.number = callee, limit, 0
        self.sent = self.taken = self.items_taken = 0
        self.inputs_ended = self.told_last = False
        self.only: bytes | None = None
        self.unsent: list[bytes] = []
        self.unsent_bytes, self.sent_s = 0, 0.0
        self.outcomes: deque[NestedOutcome] = deque()
        self.items: deque[bytes] = deque()

    @property
    def room(self) -> bool:
        """Whether another input may be sent now."""
        return self.sent - self.taken < INPUTS_MAX

    @property
    def finished(self) -> bool:
        """Whether every outcome was taken and no input will follow."""
        return self.inputs_ended and self.taken == self.sent

    def take(self) -> CallOutcome | None:
        """The next outcome that has arrived, or None."""
        if not self.outcomes:
            return None
        self.taken += 1
        found = self.outcomes.popleft()
        return CallOutcome(0, found.index, found.payload, found.exception, found.failure)

    def took(self, some: Some) -> None:
        self.items.extend(some.items)
        self.outcomes.extend(some.outcomes)

    def add(self, payload: bytes) -> bool:
        """Keep one more input; whether to send those that are kept now. Raises `InvalidError`."""
        if len(payload) > NESTED_BYTES_MAX:
            raise InvalidError(
                f"Arguments of {len(payload) >> 20} MiB cannot be sent from inside a function.",
                why=f"at most {NESTED_BYTES_MAX >> 20} MiB can",
                fix="Send them in parts, or let the program make the call.",
            )
        self.unsent.append(bytes(payload))
        self.unsent_bytes += len(payload)
        self.sent += 1
        late = time.monotonic() - self.sent_s > BATCH_S
        return late or len(self.unsent) >= BATCH_INPUTS or self.unsent_bytes >= BATCH_BYTES


def _send(call: NestedCall, last: bool = False) -> Steps[None]:
    if not call.unsent and not (last and call.number and not call.told_last):
        return
    payloads, call.unsent, call.unsent_bytes = tuple(call.unsent), [], 0
    call.sent_s, call.told_last = time.monotonic(), last
    of = (None, None) if call.number else (call.callee, call.limit)
    opened: Opened = yield AddInputs(call.number, payloads, last, *of)
    call.number = opened.call


def _add_input(call: NestedCall, payload: bytes, last: bool) -> Steps[int]:
    due = call.add(payload)
    if last:
        # How it is asked for depends on whether items are wanted.
        call.inputs_ended = True
    elif due:
        yield from _send(call)
    return call.sent - 1


def _end_inputs(call: NestedCall) -> Steps[None]:
    call.inputs_ended = True
    yield from _send(call, last=True)


def _take(call: NestedCall) -> Steps[CallOutcome]:
    if call.sent == 1 and call.inputs_ended and not call.number and call.unsent:
        outcome: NestedOutcome = yield CallOnce(call.callee, call.unsent.pop(), call.limit)
        call.outcomes.append(outcome)
    while (found := call.take()) is None:
        yield from _send(call, call.inputs_ended)
        call.took((yield TakeSome(call.number)))
    return found


def _take_item(call: NestedCall) -> Steps[bytes | CallOutcome]:
    while not call.items:
        if (found := call.take()) is not None:
            return found
        yield from _send(call, call.inputs_ended)
        call.took((yield TakeItems(call.number, call.items_taken)))
    call.items_taken += 1
    return call.items.popleft()


def _close(call: NestedCall) -> bytes:
    """The request that ends it, empty when there is nothing to end."""
    return wire.encode(CloseCall(call.number)) if call.number and not call.finished else b""


class _Common:
    def open_call(self, callee: Callee, limit: Limit | None = None, verify: Prepared | None = None) -> NestedCall:
        return NestedCall(callee, limit)

    def close_call(self, call: NestedCall, reason: str) -> None:
        """Forget the call; what still runs for it is cancelled. Does not wait."""
        if request := _close(call):
            asking._runner().begin(request, lambda *answer: None, CALLS)

    def take_nowait(self, call: NestedCall) -> CallOutcome | None:
        """The call's next outcome if it has arrived."""
        return call.take()


class NestedClient(_Common):
    """As far as calls need it, `client.Client`."""

    lost = gone = False

    def add_input(self, call: NestedCall, payload: bytes, last: bool = False) -> int:
        return drive(_add_input(call, payload, last))

    def end_inputs(self, call: NestedCall) -> None:
        drive(_end_inputs(call))

    def take(self, call: NestedCall) -> CallOutcome:
        return drive(_take(call))

    def take_item(self, call: NestedCall) -> bytes | CallOutcome:
        return drive(_take_item(call))

    def ask(self, make: Callable[[int], Any], kind: type[T], leave: object = None) -> T:
        """Ask a question about spawned calls. Raises the node's error."""
        return drive(_question(make(0), kind))

    def close(self) -> None: ...


class AsyncNestedClient(_Common):
    """As far as calls need it, `aio.AsyncClient`."""

    lost = False

    async def add_input(self, call: NestedCall, payload: bytes, last: bool = False) -> int:
        return await drive_async(_add_input(call, payload, last))

    async def end_inputs(self, call: NestedCall) -> None:
        await drive_async(_end_inputs(call))

    async def take(self, call: NestedCall) -> CallOutcome:
        return await drive_async(_take(call))

    async def take_item(self, call: NestedCall) -> bytes | CallOutcome:
        return await drive_async(_take_item(call))


def _question(message: Any, kind: type[T]) -> Steps[T]:
    if isinstance(message, SpawnCall):
        message = SpawnNested(cast(Callee, message.function), message.payloads, message.more)
    elif not isinstance(message, NestedRequest):
        raise InvalidError(
            "This cannot be asked from inside a function.",
            why="its caller's node answers calls, dicts and queues alone",
            fix="Ask in the program.",
        )
    return cast(T, (yield message))


class NestedLink:
    """As far as calls need it, `running.Link`: the specs of functions are with the caller's node."""

    def __init__(self) -> None:
        self.client = NestedClient()
        self._async_client = AsyncNestedClient()
        # What is deployed, by app and name, and when that was asked.
        self._facts: dict[tuple[str, str], tuple[CalleeFacts, float]] = {}

    def spec(self, function: Function[Any, Any]) -> Callee:
        """How the node knows it. Raises `InvalidError` for one with settings that only a program can give."""
        if function._changed:
            raise InvalidError(
                f"{function.name} was given other settings inside a function.",
                why="its workers are those that the program, or its deployment, asked for",
                fix="Call it as it is, or write a second function with these settings.",
            )
        return Callee(function.app.name, function._pool, function._parameters, function._is_found)

    async def spec_async(self, function: Function[Any, Any]) -> Callee:
        return self.spec(function)

    def limit(self, function: Function[Any, Any], most: Most = (None, None)) -> Limit | None:
        """That of one call; the function's own is with the caller's node. Raises `InvalidError`."""
        return limited(most)

    async def async_client(self) -> AsyncNestedClient:
        return self._async_client

    def facts(self, app: str, name: str) -> CalleeFacts:
        """Of what is deployed. Raises `NotFoundError`, and `RefusedError` where this worker may not call it."""
        facts, asked_s = self._facts.get((app, name), (None, 0.0))
        if facts is None or time.monotonic() - asked_s > FRESH_S:
            facts = drive(_facts(Callee(app, name, found=True)))
            self._facts[app, name] = facts, time.monotonic()
        return facts


def _facts(callee: Callee) -> Steps[CalleeFacts]:
    found: CalleeFacts = yield AskCallee(callee)
    return found


_link: NestedLink | None = None


def link() -> NestedLink:
    """That of this worker."""
    global _link
    _link = _link or NestedLink()
    return _link
