"""One call of the user's function, for one input or a batch of them: from pickled arguments to the outcome of each."""

from __future__ import annotations

import types

from . import current, plain
from .codec import Message
from .failures import Refusal, exception_message, missing_module
from .results import as_payload, dump_result, loads
from .service import Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any

    from .function import Function

    Finish = Callable[[Coroutine[Any, Any, Any]], object]
    # Takes (number of the input, number of the item from 0, pickled item) of what a generator yields.
    Emit = Callable[[int, int, bytes], None]
    # Takes (number of the input, size of an item).
    Full = Callable[[int, int], bool]
    # The class name of an outcome, and its second field.
    Outcome = tuple[str, bytes | Message]
    Arguments = tuple[tuple[Any, ...], dict[str, Any]]

# As in the module `inspect`, which is slow to import.
_CO_VARARGS, _CO_VARKEYWORDS, _CO_COROUTINE, _CO_ASYNC_GENERATOR = 0x04, 0x08, 0x80, 0x200


# How often a generator that is too far ahead, and runs beside other inputs, looks again, seconds.
PAUSE_S = 0.005


class Job:
    """`outcomes` are by number of the input, as data if `as_data`. What user code raises never leaves `run`."""

    def __init__(self, function: Function, numbers: Sequence[int], payloads: Sequence[bytes], as_data: bool) -> None:
        self._function, self._plain = function, as_data
        self.numbers = list(numbers)
        # As in `current`.
        self.place: tuple[int, str, int] = (self.numbers[0], "", 0)
        self.outcomes: dict[int, Outcome] = {}
        self._inputs: dict[int, Arguments] = {}
        for number, payload in zip(numbers, payloads, strict=True):
            try:
                self._inputs[number] = _arguments(payload)
            except Refusal as refusal:
                self.outcomes[number] = _failed(refusal, as_data)

    @property
    def is_async(self) -> bool:
        """Whether it runs on an event loop."""
        flags = getattr(getattr(self._raw(), "__code__", None), "co_flags", 0)
        return bool(self._inputs) and bool(flags & (_CO_COROUTINE | _CO_ASYNC_GENERATOR))

    def run(self, finish: Finish) -> None:
        """Call and wait; `finish` waits for a coroutine."""
        current.running.set(self.place)
        try:
            if self._inputs:
                result = self.begin()
                self._take(finish(result) if isinstance(result, types.CoroutineType) else result, finish)
        except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt are outcomes too
            self.fail(error)

    async def run_async(self, result: Any) -> None:
        """Wait for what `begin` returned."""
        current.running.set(self.place)
        try:
            if isinstance(result, types.AsyncGeneratorType):
                await self._drain(result)
            else:
                self._end(await result)
        except BaseException as error:  # noqa: BLE001 - as above
            self.fail(error)

    def begin(self) -> object:
        """Call; a coroutine or generator is still to run. Raises whatever user code raises."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """What was raised is the outcome of each input."""
        for number in self._inputs:
            self.outcomes[number] = _failed(error, self._plain)

    def _raw(self) -> object:
        if isinstance(self._function, Service):
            return self._function.raw(next(iter(self._inputs.values()))[0][0]) if self._inputs else None
        return self._function

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        begin = self._function.begin if isinstance(self._function, Service) else self._function
        return begin(*args, **kwargs)

    def _dump(self, value: object) -> bytes:
        return as_payload(plain.dump(value)) if self._plain else dump_result(value)

    def _take(self, result: object, finish: Finish) -> None:
        raise NotImplementedError

    def _end(self, value: object) -> None:
        raise NotImplementedError

    async def _drain(self, items: types.AsyncGeneratorType[Any, Any]) -> None:
        raise NotImplementedError


class One(Job):
    """One input. With `yields`, what a generator yields goes to `emit`, which waits while the caller is slow; where
    others run on the same event loop, `full` says whether it would."""

    def __init__(
        self, function: Function, number: int, payload: bytes, yields: bool, emit: Emit, full: Full | None = None,
        as_data: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(function, [number], [payload], as_data)
        self._number, self._yields, self._emit, self._full = number, yields, emit, full

    def begin(self) -> object:
        args, kwargs = self._inputs[self._number]
        return self._call(args, kwargs)

    def _take(self, result: object, finish: Finish) -> None:
        if isinstance(result, types.AsyncGeneratorType):
            finish(self._drain(result))
        elif isinstance(result, types.GeneratorType):
            self._check_yields()
            for item, value in enumerate(result):
                self._emit(self._number, item, self._dump(value))
            self.outcomes[self._number] = ("InputSucceeded", b"")
        else:
            self._end(result)

    def _end(self, value: object) -> None:
        self.outcomes[self._number] = ("InputSucceeded", self._dump(value))

    async def _drain(self, items: types.AsyncGeneratorType[Any, Any]) -> None:
        self._check_yields()
        item = 0
        async for value in items:
            data = self._dump(value)
            while self._full and self._full(self._number, len(data)):
                await self._a_moment()
            self._emit(self._number, item, data)
            item += 1
        self.outcomes[self._number] = ("InputSucceeded", b"")

    @staticmethod
    async def _a_moment() -> None:
        import asyncio

        await asyncio.sleep(PAUSE_S)

    def _check_yields(self) -> None:
        if not self._yields:
            raise Refusal(
                "invalid",
                "The function returned a generator, which cannot be sent.",
                fix="Return a list, or write `yield` in the function itself and call it with .remote_gen.",
            )


class Batch(Job):
    """Several inputs in one call: each parameter becomes the list of its values, as with Modal's `@batched`."""

    def begin(self) -> object:
        raw: Any = self._raw()
        if not isinstance(self._function, Service):
            return self._call((), _columns(raw, list(self._inputs.values()), 0))
        method = next(iter(self._inputs.values()))[0][0]
        inputs = [(args[1:], kwargs) for args, kwargs in self._inputs.values()]
        return self._call((method,), _columns(raw, inputs, 1))

    def _take(self, result: object, finish: Finish) -> None:
        self._end(result)

    def _end(self, value: object) -> None:
        if not isinstance(value, list) or len(value) != len(self._inputs):
            what = f"a list of {len(value)}" if isinstance(value, list) else f"a {type(value).__name__}"
            raise Refusal(
                "invalid",
                f"A batched function must return a list with one result for each input: {len(self._inputs)}.",
                why=f"it returned {what}",
            )
        for number, each in zip(self._inputs, value, strict=True):
            try:
                self.outcomes[number] = ("InputSucceeded", self._dump(each))
            except Refusal as refusal:
                self.outcomes[number] = _failed(refusal, self._plain)

    async def _drain(self, items: types.AsyncGeneratorType[Any, Any]) -> None:
        self._end(items)


def _arguments(payload: bytes) -> Arguments:
    try:
        args, kwargs = _plain_arguments(payload) if payload[: len(plain.MAGIC)] == plain.MAGIC else loads(payload)
    except ImportError as error:
        raise missing_module(error, "An argument") from error
    except BaseException as error:
        why = f"{type(error).__name__}: {error}"
        raise Refusal("serialization", "The arguments could not be unpickled in the image.", why=why) from error
    return args, kwargs


def _plain_arguments(payload: bytes) -> Any:
    """Of a call that a worker made which may send data alone."""
    from potluck import plain as reader

    return reader.loads(payload)


def _failed(error: BaseException, as_data: bool) -> Outcome:
    if isinstance(error, Refusal):
        return "InputRefused", error.message
    return "InputRaised", exception_message(error, as_data)


def _columns(raw: Any, inputs: list[Arguments], bound: int) -> dict[str, list[Any]]:
    """Parameter → its values. `bound` is 1 for a method, which has its object already."""
    code = raw.__code__
    if code.co_flags & (_CO_VARARGS | _CO_VARKEYWORDS):
        raise Refusal("invalid", f"{raw.__name__} takes *args or **kwargs, which a batched function cannot.")
    names = code.co_varnames[bound : code.co_argcount]
    keywords = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    rows = [_row(raw, names, keywords, *each) for each in inputs]
    return {name: [row[name] for row in rows] for name in rows[0]}


def _row(
    raw: Any, names: Sequence[str], keywords: Sequence[str], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """One input by the names of its parameters, with the defaults of those that it leaves out."""
    values = raw.__defaults__ or ()
    defaults = {**dict(zip(names[len(names) - len(values) :], values, strict=True)), **(raw.__kwdefaults__ or {})}
    given = dict(zip(names, args, strict=False))
    row = {**defaults, **given, **kwargs}
    if len(args) > len(names) or given.keys() & kwargs.keys() or row.keys() != {*names, *keywords}:
        raise TypeError(f"{raw.__name__}() takes the arguments {', '.join((*names, *keywords))}, each once")
    return {name: row[name] for name in (*names, *keywords)}
