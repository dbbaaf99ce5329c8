"""Calls from inside functions: a worker asks through its lease, and the caller's node places them in its owner's name.

What may be called are functions of the worker's own app, and of deployed ones where the worker's peer is trusted. A
call ends with the input that made it, unless it was spawned.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from msgspec.structs import replace

from potluck import wire
from potluck.errors import Error, InvalidError, NotFoundError, RefusedError, SerializationError
from potluck.wire import Failure, FunctionSpec, function_id
from potluck.wire import nested as messages
from potluck.wire.apps import NamedFunction
from potluck.wire.common import Limit
from potluck.wire.lease import InputLog
from potluck.wire.spawned import AddSpawned, AskSpawned, AwaitOutcome, CancelSpawned, SpawnCall, SpawnedOutcome
from potluck_node.core import events as ev
from potluck_node.core.trust import is_data

# Spawned calls of one app that go on, beyond which its workers may spawn no more: each is kept on disk for days.
SPAWNED_MAX = 1000
# What workers on peers that are not trusted may spawn through one lease: it stays on the owner's disk.
SPAWN_INPUTS_MAX, SPAWN_BYTES_MAX = 10_000, 1 << 30

# Takes the number of the request, and the answer or why there is none.
Tell = Callable[[int, bytes, Failure | None], None]
Spawning = AddSpawned | AskSpawned | AwaitOutcome | CancelSpawned


class Place(Protocol):
    """The caller's side of leases."""

    def open(
        self, call: str, function: FunctionSpec, sink: Call, limit: Limit | None, asked: tuple[str, int]
    ) -> None: ...
    def submit(self, event: ev.InputAdded | ev.ItemsTaken | ev.InputsEnded | ev.CallCancelled) -> None: ...
    def runs(self, lease: str, number: int) -> tuple[str, int] | None:
        """(call, index) of an input that a lease has."""
        ...

    def show(self, call: str, index: int, message: InputLog) -> None:
        """Print what was printed for an input."""
        ...

    def start(self, task: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run something as long as this is served."""
        ...


class Names(Protocol):
    """See `named`."""

    def found(self, app: str, name: str) -> NamedFunction | None: ...
    def own(self, asking: FunctionSpec, app: str, name: str) -> NamedFunction | None: ...
    def can_want(self, asking: FunctionSpec, app: str) -> bool: ...
    async def want(self, asking: FunctionSpec, app: str, name: str) -> None: ...


class Spawned(Protocol):
    """See `spawned`."""

    async def answer(
        self, question: SpawnCall | Spawning, show: Callable[[InputLog], None], asked: tuple[str, int] | None = None
    ) -> wire.Message: ...
    def app_of(self, call: str) -> str: ...
    def open_of(self, app: str) -> int: ...


class Nested:
    """All that goes on; gives each lease its desk."""

    def __init__(self, place: Place, names: Names, spawned: Spawned) -> None:
        self.place, self.names, self.spawned = place, names, spawned
        # Functions that wait for each other, down to the call of this name.
        self.chains: dict[str, tuple[str, ...]] = {}
        self._numbers = itertools.count(1)

    def desk(self, lease: str, function: FunctionSpec, trusted: bool, tell: Tell) -> NestedDesk:
        """Where the workers of a lease ask; `tell` is given the answers."""
        return NestedDesk(self, lease, function, trusted, tell)

    def new_name(self) -> str:
        return f"nested-{next(self._numbers)}"


class NestedDesk:
    """Made by `Nested.desk`. Requests have the lease's numbers."""

    def __init__(self, nested: Nested, lease: str, function: FunctionSpec, trusted: bool, tell: Tell) -> None:
        self.nested, self._lease, self._function, self._trusted, self._tell = nested, lease, function, trusted, tell
        self._calls: dict[int, Call] = {}
        self._numbers = itertools.count(1)
        # Calls with one input, and those whose outcomes are awaited, by the number of the request.
        self._asked: dict[int, Call] = {}
        # Requests that wait until their function is named.
        self._wanted: set[int] = set()
        self._closed = False
        self._spawned_inputs = self._spawned_bytes = 0

    def ask(self, number: int, input: int, payload: bytes, wanted: bool = True) -> None:
        """Answer, when it is time; if `wanted`, what is called may be asked for first."""
        try:
            request = wire.decode(payload, messages.NestedRequest)
            if wanted and self._unnamed(request):
                self._wanted.add(number)
                self.nested.place.start(self._when_named, number, input, payload, request.callee)
            elif isinstance(request, Spawning | messages.SpawnNested):
                self.nested.place.start(self._spawn, number, input, request)
            elif isinstance(request, messages.TakeSome | messages.TakeItems):
                call = self._asked[number] = self._known(request.call)
                call.take(number, request.items if isinstance(request, messages.TakeItems) else 0)
            elif (answer := self._answered(number, input, request)) is not None:
                self.tell(number, answer)
        except Error as error:
            self._tell(number, b"", Failure.of(error))

    def _unnamed(self, request: Any) -> bool:
        """Whether a function of the worker's own app is called of which only its program knows."""
        callee: messages.Callee | None = getattr(request, "callee", None)
        if callee is None or callee.found or self._own(callee):
            return False
        return self.nested.names.can_want(self._function, self._app(callee))

    async def _when_named(self, number: int, input: int, payload: bytes, callee: messages.Callee) -> None:
        try:
            await self.nested.names.want(self._function, self._app(callee), callee.name)
        except Error as error:
            self._tell(number, b"", Failure.of(error))
        else:
            if number in self._wanted and not self._closed:
                self.ask(number, input, payload, wanted=False)
        finally:
            self._wanted.discard(number)

    def tell(self, number: int, answer: messages.NestedAnswer) -> None:
        self._asked.pop(number, None)
        if not self._closed:
            self._tell(number, wire.encode(answer), None)

    def leave(self, number: int) -> None:
        """Nobody waits for this answer any more."""
        self._wanted.discard(number)
        if call := self._asked.pop(number, None):
            call.left(number)

    def input_over(self, input: int) -> None:
        """An input has ended: so do its calls."""
        for call in [each for each in self._calls.values() if each.input == input]:
            call.cancel("the function that called it has ended")

    def close(self) -> None:
        """The lease is over."""
        self._closed = True
        for call in list(self._calls.values()):
            call.cancel("the function that called it is gone")

    def shown(self, input: int, message: InputLog) -> None:
        """Something was printed by what an input has called."""
        if found := self.nested.place.runs(self._lease, input):
            self.nested.place.show(*found, message)

    def forget(self, call: Call) -> None:
        self._calls.pop(call.number, None)
        self.nested.chains.pop(call.name, None)
        self._asked = {number: each for number, each in self._asked.items() if each is not call}

    # Requests

    def _answered(self, number: int, input: int, request: object) -> messages.NestedAnswer | None:
        match request:
            case messages.AskCallee(callee):
                found = self._find(callee)
                web = found.spec.web is not None
                return messages.CalleeFacts(found.spec.generator, web, found.methods, found.parameters)
            case messages.CallOnce(callee, payload, limit):
                call = self._open(callee, input, limit, number)
                call.add((payload,), last=True)
                self._asked[number] = call
                return None
            case messages.AddInputs(known, payloads, last, callee, limit):
                call = self._open(callee, input, limit) if callee else self._known(known)
                call.add(payloads, last)
                return messages.Opened(call.number)
            case messages.CloseCall(known):
                if ended := self._calls.get(known):
                    ended.cancel("the function that called it wants no more")
                return messages.Opened(known)
        raise AssertionError(request)

    def _known(self, number: int) -> Call:
        if number not in self._calls:
            raise NotFoundError("There is no such call.", why="it is over, or another worker's")
        return self._calls[number]

    def check(self, payload: bytes) -> None:
        """Raises `InvalidError` for what is too large, and `SerializationError` for what would run code of a peer that
        is not trusted, perhaps where secrets are."""
        if len(payload) > messages.NESTED_BYTES_MAX:
            raise too_large("Arguments", len(payload))
        if not self._trusted and not is_data(payload):
            raise SerializationError("The arguments are a pickle, from a peer that is not trusted.")

    def _open(self, callee: messages.Callee, input: int, limit: Limit | None, once: int = 0) -> Call:
        if len(self._calls) >= messages.CALLS_MAX:
            raise RefusedError(f"{messages.CALLS_MAX} calls of this function's workers are open.", fix="End some.")
        found = self._find(callee)
        if found.spec.web:
            raise InvalidError(f"{callee.name} answers requests, and cannot be called.")
        chain = self._chain(input)
        spec = _spec(found, callee.parameters)
        base = function_id(spec)
        if len(chain) > messages.DEPTH_MAX:
            raise InvalidError(
                f"{callee.name} was not called: {messages.DEPTH_MAX} calls wait for each other already.",
                why="each holds the memory of a worker while it waits",
                fix="Call it with .local(…), or with .spawn(…) and do not wait for the result.",
            )
        call = Call(self, next(self._numbers), replace(spec, level=chain.count(base)), input, once)
        self._calls[call.number] = call
        self.nested.chains[call.name] = (*chain, base)
        # Names of limits are the node's.
        limit = replace(limit, name="") if limit else None
        self.nested.place.open(call.name, call.function, call, limit, (self._lease, input))
        return call

    def _chain(self, input: int) -> tuple[str, ...]:
        """The functions that wait for each other, down to the input that asks."""
        found = self.nested.place.runs(self._lease, input) if input else None
        known = self.nested.chains.get(found[0]) if found else None
        level = self._function.level
        return known or (function_id(replace(self._function, level=0)),) * (level + 1)

    def _find(self, callee: messages.Callee) -> NamedFunction:
        """Raises `NotFoundError`, and `RefusedError` for what the peer may not call."""
        if not self._trusted and callee.found and callee.app != self._function.app:
            raise RefusedError(
                f"{self._function.name} may not call functions of {callee.app[:64]} where it runs.",
                why="its peer is not trusted, and so may call those of its own app alone",
                fix="Name the peer in the setting `trust` of the caller's node.",
            )
        app = self._app(callee)
        found = self.nested.names.found(app, callee.name) if callee.found else self._own(callee)
        if found is None:
            raise NotFoundError(
                f"{app[:64]} has nothing named {callee.name[:64]} that can be called from inside a function.",
                why="the app is not deployed, and its program is gone, or has no such function",
                fix="Deploy it: `potluck deploy FILE.py`.",
            )
        return found

    def _app(self, callee: messages.Callee) -> str:
        return callee.app if self._trusted else self._function.app

    def _own(self, callee: messages.Callee) -> NamedFunction | None:
        return self.nested.names.own(self._function, self._app(callee), callee.name)

    async def _spawn(self, number: int, input: int, request: Spawning | messages.SpawnNested) -> None:
        try:
            answer = await self._spawned(input, request)
        except Error as error:
            self._tell(number, b"", Failure.of(error))
        else:
            self.tell(number, answer)

    async def _spawned(self, input: int, request: Spawning | messages.SpawnNested) -> messages.NestedAnswer:
        spawned, app = self.nested.spawned, self._function.app
        if isinstance(request, AddSpawned | messages.SpawnNested):
            self._check_spawning(request.payloads)
        if isinstance(request, messages.SpawnNested):
            if spawned.open_of(app) >= SPAWNED_MAX:
                raise RefusedError(f"{SPAWNED_MAX} spawned calls of {app} go on already.", fix="Wait for some.")
            spec = _spec(self._find(request.callee), request.callee.parameters)
            question: SpawnCall | Spawning = SpawnCall(0, spec, request.payloads, request.more)
        else:
            if not self._trusted and spawned.app_of(request.call) != app:
                raise NotFoundError(f"There is no call {request.call[:64]} of {app}.")
            question = request
        answer = await spawned.answer(question, lambda message: None, (self._lease, input))
        if isinstance(answer, SpawnedOutcome) and answer.payload and len(answer.payload) > messages.NESTED_BYTES_MAX:
            raise too_large("A result", len(answer.payload))
        return answer  # type: ignore[return-value]

    def _check_spawning(self, payloads: tuple[bytes, ...]) -> None:
        for payload in payloads:
            self.check(payload)
        self._spawned_inputs += len(payloads)
        self._spawned_bytes += sum(map(len, payloads))
        if not self._trusted and (self._spawned_inputs > SPAWN_INPUTS_MAX or self._spawned_bytes > SPAWN_BYTES_MAX):
            raise RefusedError(
                "Workers on a peer that is not trusted have spawned too much.",
                why=f"at most {SPAWN_INPUTS_MAX} inputs and {SPAWN_BYTES_MAX >> 20} MiB through one lease",
                fix="Name the peer in the setting `trust` of the caller's node.",
            )


class Call:
    """One call, and its sink. `input` is that which made it, 0 if unknown; `once` the request that it answers."""

    def __init__(self, desk: NestedDesk, number: int, function: FunctionSpec, input: int, once: int) -> None:
        self._desk, self.number, self.function, self.input, self._once = desk, number, function, input, once
        self.name = desk.nested.new_name()
        self._came: deque[messages.NestedOutcome] = deque()
        self._items: deque[bytes] = deque()
        self._added = self._told = self._taken = 0
        self._last = False
        self._asker = 0

    def add(self, payloads: tuple[bytes, ...], last: bool) -> None:
        """Further inputs. Raises `RefusedError`, and as `NestedDesk.check`; then the call is over."""
        try:
            for payload in payloads:
                self._desk.check(payload)
            if self._last or self._added + len(payloads) - self._told > messages.INPUTS_MAX:
                raise RefusedError(f"A call has more than {messages.INPUTS_MAX} inputs on the way, or has ended.")
        except Error:
            self.cancel("its arguments were refused")
            raise
        place = self._desk.nested.place
        for payload in payloads:
            self._added += 1
            place.submit(ev.InputAdded(self.name, self._added - 1, payload))
        if last:
            self._last = True
            place.submit(ev.InputsEnded(self.name))

    def take(self, number: int, items: int) -> None:
        """Answer this request with what has come, or comes. Raises `RefusedError`."""
        if self._asker:
            raise RefusedError("Somebody waits for the outcomes of this call already.")
        self._asker = number
        if items > self._taken:
            self._taken = items
            self._desk.nested.place.submit(ev.ItemsTaken(self.name, 0, items))
        self._serve()

    def left(self, number: int) -> None:
        """Nobody waits for the answer to this request; what has come stays, unless it is all that was asked for."""
        if number == self._once:
            self.cancel("the function that called it waits no longer")
        elif number == self._asker:
            self._asker = 0

    def cancel(self, reason: str) -> None:
        self._desk.forget(self)
        self._desk.nested.place.submit(ev.CallCancelled(self.name, reason))

    def _serve(self) -> None:
        if not self._asker or not (self._items or self._came):
            return
        items: list[bytes] = []
        outcomes: list[messages.NestedOutcome] = []
        size = 0
        while self._items and len(items) < messages.ANSWER_OUTCOMES and size < messages.ANSWER_BYTES:
            items.append(self._items.popleft())
            size += len(items[-1])
        while (
            not self._items and self._came and len(outcomes) < messages.ANSWER_OUTCOMES and size < messages.ANSWER_BYTES
        ):
            outcomes.append(self._came.popleft())
            size += len(outcomes[-1].payload or b"")
        self._told += len(outcomes)
        number, self._asker = self._asker, 0
        self._desk.tell(number, messages.Some(tuple(items), tuple(outcomes)))
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._last and self._told == self._added:
            self._desk.forget(self)

    # The sink

    def deliver(self, action: ev.Deliver) -> None:
        outcome = messages.NestedOutcome(action.index, action.payload, action.exception, action.failure)
        if action.payload is not None and len(action.payload) > messages.NESTED_BYTES_MAX:
            failure = Failure.of(too_large("A result", len(action.payload)))
            outcome = messages.NestedOutcome(action.index, failure=failure)
        if self._once:
            self._told += 1
            self._desk.tell(self._once, outcome)
            self._desk.forget(self)
            return
        self._came.append(outcome)
        self._serve()

    def item(self, action: ev.DeliverItem) -> None:
        self._items.append(action.payload)
        self._serve()

    def log(self, call: str, index: int, message: InputLog) -> None:
        """What it prints is shown where the function that called it prints."""
        self._desk.shown(self.input, message)

    def began(self, action: ev.Began) -> None: ...

    def taken(self, action: ev.DeliverTaken) -> None: ...

    def ended(self, action: ev.CallEnded) -> None: ...

    def notice(self, action: ev.Notice) -> None: ...

    async def drained(self) -> None: ...


def _spec(found: NamedFunction, parameters: bytes) -> FunctionSpec:
    """Raises `InvalidError` for an object of a function, or a class without one."""
    if bool(found.methods) != bool(parameters):
        raise InvalidError(f"{found.name} is a {'class' if found.methods else 'function'}.")
    return replace(found.spec, parameters=parameters) if found.methods else found.spec


def too_large(what: str, size: int) -> InvalidError:
    return InvalidError(
        f"{what} of {size >> 20} MiB cannot be sent from or to a function that calls another one.",
        why=f"at most {messages.NESTED_BYTES_MAX >> 20} MiB can",
        fix="Send it in parts, or let the program call both functions.",
    )
