"""`FunctionCall`: a call that was spawned, runs on its own, and is asked for its results later, from anywhere on this
machine."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast

from potluck.absent import Absent
from potluck.errors import ConnectionError, Error, InvalidError, RemoteProtocolError
from potluck.place import is_local

if TYPE_CHECKING:
    from potluck.client import Client
    from potluck.functions import Function
    from potluck.wire.spawned import JudgeSpawned, Spawned, SpawnedOutcome
    from potluck.wire.verify import Verification

# Says with which of the results before it agrees the new one, see `verify.judge`.
Judge = Callable[[tuple[bytes, ...]], int]

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
T = TypeVar("T")


class WithAio(Generic[P, T]):
    """A method with a twin for asyncio, which waits in a thread."""

    def __init__(self, call: Callable[P, T]) -> None:
        self._call = call

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._call(*args, **kwargs)

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> T:
        import asyncio

        return await asyncio.to_thread(self._call, *args, **kwargs)


class Iter(Generic[R]):
    """`call.iter()` yields results in the order of the inputs; `call.iter.aio()` does so in asyncio."""

    def __init__(self, call: FunctionCall[R]) -> None:
        self._call = call

    def __call__(self, *, start: int = 0, end: int | None = None) -> Iterator[R]:
        last = self._call.num_inputs() if end is None else end
        return (self._call.get(index=index) for index in range(start, last))

    async def aio(self, *, start: int = 0, end: int | None = None) -> AsyncIterator[R]:
        last = await self._call.num_inputs.aio() if end is None else end
        for index in range(start, last):
            yield await self._call.get.aio(index=index)


class FunctionCall(Absent, Generic[R]):
    """A spawned call. Made by `Function.spawn`, `Function.spawn_map` or `FunctionCall.from_id`.

    It is recorded by the local node and goes on when the program ends, and after a restart of the node. Results are
    kept for 7 days. All methods have `.aio` twins.
    """

    def __init__(self, object_id: str, judge: Judge | None = None) -> None:
        self._object_id = object_id
        # Compares results, where they are verified and bytes alone do not say.
        self._judge = judge
        self.get = WithAio(self._get)
        self.cancel = WithAio(self._cancel)
        self.num_inputs = WithAio(self._num_inputs)
        self.iter: Iter[R] = Iter(self)

    def __repr__(self) -> str:
        return f"<FunctionCall {self._object_id}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return FunctionCall, (self._object_id,)

    @property
    def object_id(self) -> str:
        """The number under which the node knows the call."""
        return self._object_id

    @staticmethod
    def from_id(function_call_id: str) -> FunctionCall[Any]:
        """The call with this number, spawned by any program on this machine. Raises `NotFoundError` when it is used and
        there is none."""
        if not function_call_id.startswith("fc-"):
            raise InvalidError(f"{function_call_id!r} is not the number of a call.", fix="They begin with fc-.")
        return FunctionCall(function_call_id)

    @staticmethod
    def gather(*function_calls: FunctionCall[T]) -> Sequence[T]:
        """The results of all of them, in order. Raises the first exception."""
        return [call.get() for call in function_calls]

    def _get(self, timeout: float | None = None, *, index: int = 0) -> R:
        """The result of one input; raises its exception.

        `timeout` is in seconds; 0 only looks. Raises `TimeoutError` (Potluck's, a subclass of Python's) when it is over
        first, `NotFoundError`, or `InputCancellation` when the call was cancelled.
        """
        from potluck import outcomes
        from potluck.errors import TimeoutError
        from potluck.wire.control import CallOutcome

        found = _await(self._object_id, index, timeout, self._judge)
        if found is None:
            raise TimeoutError(
                f"{self._object_id} has no result yet.", why=f"{timeout:g} s are over", fix="Ask again; it goes on."
            )
        outcome = CallOutcome(0, index, found.payload, found.exception, found.failure)
        return cast(R, outcomes.value(outcome))

    def _num_inputs(self) -> int:
        """How many inputs the call has: 1 for `spawn`."""
        return _ask(self._object_id).inputs

    def _cancel(self, terminate_containers: bool = False) -> None:
        """End it: inputs without a result get `InputCancellation`, and what runs is stopped.

        `terminate_containers` changes nothing here: workers that run a cancelled input end in any case.
        """
        from potluck.wire.spawned import CancelSpawned, Spawned

        _question(lambda number: CancelSpawned(number, self._object_id, "cancelled by its caller"), Spawned)


_connection: Client | None = None


def _client() -> Client:
    """A connection of our own: a spawned call outlives the run of its app. In a worker, what stands for one."""
    global _connection
    if not is_local():
        from potluck import nested

        return cast("Client", nested.link().client)
    from potluck import start
    from potluck.output import make_output

    if _connection is None or _connection.gone:
        _connection = start.connect(make_output(False))
    return _connection


def _question(make: Callable[[int], Any], kind: type[T]) -> T:
    """Ask the node; once more when it was restarted meanwhile, which changes nothing for what is asked here."""
    try:
        return cast(T, _client().ask(make, cast(Any, kind)))
    except ConnectionError:
        return cast(T, _client().ask(make, cast(Any, kind)))


def _ask(call: str) -> Spawned:
    from potluck.wire.spawned import AskSpawned, Spawned

    return _question(lambda number: AskSpawned(number, call), Spawned)


def _await(call: str, index: int, timeout: float | None, judge: Judge | None) -> SpawnedOutcome | None:
    """The outcome, or None when the time was over. Results that have to be compared for it are, on the way."""
    from potluck.wire import Message
    from potluck.wire.spawned import AwaitOutcome, JudgeSpawned, SpawnedOutcome

    if timeout is not None and timeout < 0:
        raise InvalidError(f"timeout={timeout} is no time to wait.", fix="Give seconds, 0 to only look, or None.")
    until = None if timeout is None else time.monotonic() + timeout
    while True:
        left_us = -1 if until is None else max(0, round((until - time.monotonic()) * 1e6))
        make = _with(AwaitOutcome, call, index, left_us, judge is not None)
        found = _question(make, Message)
        if not (isinstance(found, JudgeSpawned) and judge):
            break
        _tell(found, judge)
    if not isinstance(found, SpawnedOutcome):
        raise RemoteProtocolError(f"The node answered with {type(found).__name__} instead of an outcome.")
    is_there = found.payload is not None or found.exception is not None or found.failure is not None
    return found if is_there else None


def _tell(asked: JudgeSpawned, judge: Judge) -> None:
    """Compare results for the node; this runs the caller's own code."""
    from potluck.wire.common import Failure
    from potluck.wire.spawned import Spawned, SpawnedJudged

    agrees, failure = -1, None
    try:
        agrees = judge(asked.payloads)
    except Error as error:
        failure = Failure.of(error)
    _question(_with(SpawnedJudged, asked.call, asked.number, agrees, failure), Spawned)


class Spawn(Generic[P, R]):
    """`f.spawn(…)` records a call and returns at once; `await f.spawn.aio(…)` does so in asyncio."""

    def __init__(self, function: Function[P, R]) -> None:
        self._function = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> FunctionCall[R]:
        return record(self._function, iter((self._function._payload(args, kwargs),)))

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> FunctionCall[R]:
        import asyncio

        return await asyncio.to_thread(self, *args, **kwargs)


class SpawnMap(Generic[R]):
    """`f.spawn_map(xs, ys)` records `f(x, y)` for each pair, as one call with many results."""

    def __init__(self, function: Function[Any, R]) -> None:
        self._function = function

    def __call__(self, *input_iterators: Iterable[Any], kwargs: Mapping[str, Any] | None = None) -> FunctionCall[R]:
        return record(self._function, self._function._payloads(zip(*input_iterators, strict=False), kwargs))

    async def aio(self, *input_iterators: Iterable[Any], kwargs: Mapping[str, Any] | None = None) -> FunctionCall[R]:
        import asyncio

        return await asyncio.to_thread(self, *input_iterators, kwargs=kwargs)


def record(function: Function[Any, R], inputs: Iterator[bytes]) -> FunctionCall[R]:
    """Have the node record a call of the function, batch by batch; it begins when the last has come."""
    from potluck.wire.spawned import AddSpawned, SpawnCall, Spawned

    function._check_returns("spawn")
    rule, judge = _verified(function)
    spec = function._link().spec(function)
    client, batches = _client(), _batches(inputs)
    batch, following = next(batches, ()), next(batches, ())
    make = _with(SpawnCall, spec, batch, bool(following), None, rule)
    call = client.ask(make, Spawned).call
    while following:
        batch, following = following, next(batches, ())
        client.ask(_with(AddSpawned, call, batch, bool(following)), Spawned)
    return FunctionCall(call, judge)


def _verified(function: Function[Any, R]) -> tuple[Verification | None, Judge | None]:
    """How the node verifies it, and what compares results for that. Raises `InvalidError`."""
    from msgspec.structs import replace

    from potluck.verify import compares, prepared

    verify = function._options.verify
    if verify is None:
        return None, None
    if not is_local():
        raise InvalidError(
            f"{function.name} has verify=, and cannot be spawned inside of a function.",
            why="whatever runs there may be a stranger's word",
            fix="Spawn it in the program, or have the node verify: its setting verify_strangers.",
        )
    ready = prepared(function)
    assert ready
    # The program may be gone when results come: it is asked only where bytes do not say.
    asks = compares(verify)
    return replace(ready.wire, judged=asks), ready.judge if asks else None


def _with(make: Callable[..., Any], *fields: object) -> Callable[[int], Any]:
    """What makes the message of its number."""
    return lambda number: make(number, *fields)


def _batches(inputs: Iterable[bytes]) -> Iterator[tuple[bytes, ...]]:
    from potluck.wire.spawned import BATCH_BYTES

    batch: list[bytes] = []
    size = 0
    for payload in inputs:
        if batch and size + len(payload) > BATCH_BYTES:
            yield tuple(batch)
            batch, size = [], 0
        batch.append(payload)
        size += len(payload)
    if batch:
        yield tuple(batch)
