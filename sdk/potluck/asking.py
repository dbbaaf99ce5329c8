"""How shared state is asked for: methods are written once, as steps that yield requests, and driven here, blocking or
awaiting. A program asks its local node; a worker its caller's, through the runner that it runs in."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast

from potluck.errors import Error, InvalidError, SerializationError
from potluck.place import is_local

if TYPE_CHECKING:
    import asyncio

    from potluck.aio import AsyncClient
    from potluck.wire.state import StateRequest as _StateRequest
    from potluck.wire.volumes import MountRequest

    StateRequest = _StateRequest | MountRequest

P = ParamSpec("P")
T = TypeVar("T")
# Yields requests, is sent their answers, returns a result.
Steps = Generator["StateRequest", Any, T]


class Both(Generic[P, T]):
    """A method with a twin for asyncio: `.aio`."""

    def __init__(self, steps: Callable[P, Steps[T]]) -> None:
        self._steps = steps

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        return drive(self._steps(*args, **kwargs))

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> T:
        return await drive_async(self._steps(*args, **kwargs))


class EachBoth(Generic[P, T]):
    """As `Both`, for iterators: each call of what `pages` returns gives the next items, and None after the last."""

    def __init__(self, pages: Callable[P, Callable[[], Steps[list[T] | None]]]) -> None:
        self._pages = pages

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        page = self._pages(*args, **kwargs)
        while (items := drive(page())) is not None:
            yield from items

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        page = self._pages(*args, **kwargs)
        while (items := await drive_async(page())) is not None:
            for item in items:
                yield item


def drive(steps: Steps[T]) -> T:
    """Ask, wait, go on."""
    try:
        request = next(steps)
        while True:
            try:
                answer = _ask(request)
            except Error as error:
                request = steps.throw(error)
            else:
                request = steps.send(answer)
    except StopIteration as stop:
        return cast(T, stop.value)


async def drive_async(steps: Steps[T]) -> T:
    """As `drive`, without blocking the event loop."""
    try:
        request = next(steps)
        while True:
            try:
                answer = await _ask_async(request)
            except Error as error:
                request = steps.throw(error)
            else:
                request = steps.send(answer)
    except StopIteration as stop:
        return cast(T, stop.value)


def _ask(request: StateRequest) -> Any:
    from potluck import wire
    from potluck.wire.state import AskState, LeaveState, StateAnswer, StateAnswered

    payload, kind = wire.encode(request), _kind(request)
    if not is_local():
        return wire.decode(_ask_caller(payload, kind=kind), StateAnswer)
    from potluck.calls import _client

    # Never asked twice: what was asked may have been done when the connection ended.
    answer = _client().ask(lambda number: AskState(number, payload), StateAnswered, LeaveState)
    return wire.decode(answer.payload, StateAnswer)


async def _ask_async(request: StateRequest) -> Any:
    from potluck import wire
    from potluck.wire.state import AskState, LeaveState, StateAnswer, StateAnswered

    payload, kind = wire.encode(request), _kind(request)
    if not is_local():
        return wire.decode(await _ask_caller_async(payload, kind=kind), StateAnswer)
    client = await _async_client()
    answer = await client.ask(lambda number: AskState(number, payload), StateAnswered, LeaveState)
    return wire.decode(answer.payload, StateAnswer)


def _kind(request: StateRequest) -> str:
    """The message in which a worker asks: what concerns a mount is its own node's affair. Raises `InvalidError`."""
    from potluck.wire.volumes import MountRequest

    if not isinstance(request, MountRequest):
        return "StateAsked"
    if is_local():
        raise InvalidError(
            "commit() and reload() are for functions that mount the volume.",
            fix="A program changes it with batch_upload(), remove_file() and copy_files(), and always sees the newest.",
        )
    return "MountAsked"


# From a program

_clients: dict[asyncio.AbstractEventLoop, asyncio.Task[AsyncClient]] = {}


async def _async_client() -> AsyncClient:
    """The connection of the running event loop."""
    import asyncio

    loop = asyncio.get_running_loop()
    for closed in [each for each in _clients if each.is_closed()]:
        del _clients[closed]
    found = _clients.get(loop)
    if found is None or (found.done() and (found.cancelled() or found.exception() or found.result().lost)):
        found = _clients[loop] = loop.create_task(_connect())
    return await asyncio.shield(found)


async def _connect() -> AsyncClient:
    import asyncio

    from potluck import calls, start
    from potluck.aio import AsyncClient
    from potluck.output import make_output

    # Starts a node where none runs.
    await asyncio.to_thread(calls._client)
    return await AsyncClient.connect(start.path(), make_output(False))


# From a worker


def _runner() -> Any:
    """The runner's side of it. Raises `InvalidError` where there is none."""
    for package in ("potluck_runner", "potluck.runner"):
        current = getattr(sys.modules.get(f"{package}.asking"), "current", None)
        if current is not None and current.is_here:
            return current
    raise InvalidError(
        "Calls, dicts and queues cannot be used here.",
        why="in a sandbox they are asked for by workers, not while modules are imported or in processes of their own",
        fix="Use them in the function, in a method, or in @potluck.enter().",
    )


def _ask_caller(
    payload: bytes, about: str = "", waits: bool = False, streams: bool = False, kind: str = "StateAsked"
) -> bytes:
    from queue import SimpleQueue

    runner = _runner()
    answers: SimpleQueue[tuple[Any, Any]] = SimpleQueue()
    number = runner.begin(payload, lambda *answer: answers.put(answer), about, waits, streams, kind)
    try:
        while (answer := answers.get()) == (None, None):
            pass
    except BaseException:
        runner.drop(number)
        raise
    return _told(*answer)


async def _ask_caller_async(
    payload: bytes, about: str = "", waits: bool = False, streams: bool = False, kind: str = "StateAsked"
) -> bytes:
    import asyncio

    runner, loop = _runner(), asyncio.get_running_loop()
    told: asyncio.Future[tuple[Any, Any]] = loop.create_future()

    def tell(answer: Any, failure: Any) -> None:
        if not told.done() and (answer, failure) != (None, None):
            told.set_result((answer, failure))

    def come(*answer: Any) -> None:
        loop.call_soon_threadsafe(tell, *answer)

    number = runner.begin(payload, come, about, waits, streams, kind)
    try:
        return _told(*await told)
    except asyncio.CancelledError:
        runner.drop(number)
        raise


def _told(payload: Any, failure: Any) -> bytes:
    from potluck.errors import from_kind

    if failure:
        _, kind, what, why, fix = failure
        raise from_kind(kind, what, why=why, fix=fix)
    return bytes(payload)


def dump(value: object, what: str) -> bytes:
    """A value for others: a pickle, or data where this worker's caller takes nothing else. Raises
    `SerializationError`."""
    as_data = False if is_local() else _runner().as_data
    if as_data is not False:
        try:
            return as_plain(value, what)
        except SerializationError:
            if as_data:
                raise
    import cloudpickle

    from potluck.serialize import explain

    try:
        return cast(bytes, cloudpickle.dumps(value, protocol=5))
    except Exception:  # noqa: BLE001 - pickling runs foreign code, which raises what it likes
        raise explain(value, what) from None


def as_plain(value: object, what: str) -> bytes:
    """A value as data, the same bytes for the same value. Raises `SerializationError`."""
    from potluck.runner import plain
    from potluck.runner.failures import Refusal

    try:
        return plain.dumps(value, what)
    except Refusal as refusal:
        _, _, text, why, fix, *_ = cast(Any, refusal.message)
        raise SerializationError(text, why=why, fix=fix) from None
