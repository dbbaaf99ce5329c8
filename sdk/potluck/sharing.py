"""`@potluck.concurrent()` and `@potluck.batched()`: how many inputs one worker has at once. Imported with `potluck`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from potluck.errors import InvalidError

T = TypeVar("T")

# As Modal's. A thousand threads, or a thousand inputs in one list, are as many as one process serves well; a batch
# that has waited ten minutes should have been run.
INPUTS_MAX = 1000
BATCH_MAX = 1000
WAIT_MS_MAX = 10 * 60 * 1000

# What the decorators leave on a function or class.
_MARK = "_potluck_sharing"

# As in the module `inspect`, which is slow to import.
CO_GENERATOR, CO_ASYNC_GENERATOR = 0x20, 0x200


class Sharing(NamedTuple):
    """As `wire.Sharing`, whose module is too slow for `import potluck`; `batch_wait_ms` is in milliseconds."""

    max_inputs: int = 1
    target_inputs: int = 0
    batch_size: int = 0
    batch_wait_ms: int = 0


ALONE = Sharing()


def concurrent(*, max_inputs: int | None = None, target_inputs: int | None = None) -> Callable[[T], T]:
    """Let one worker run up to `max_inputs` at once: coroutines on one event loop, plain functions in threads.

    New workers are started when each has `target_inputs`, by default as many as it may. It stands below
    `@app.function()` or `@app.cls()`; a method cannot have it alone. Raises `InvalidError`.
    """
    wanted = checked_concurrency(max_inputs, target_inputs)

    def decorate(decorated: T) -> T:
        _check_plain(decorated, "concurrent")
        if not isinstance(decorated, type) and is_method(decorated):
            raise InvalidError(
                "@potluck.concurrent() cannot decorate a method.", fix="Decorate the class, below @app.cls()."
            )
        return _mark(decorated, wanted)

    return decorate


def batched(*, max_batch_size: int, wait_ms: int) -> Callable[[Callable[..., Any]], Any]:
    """Let one call take up to `max_batch_size` inputs, gathered for at most `wait_ms` milliseconds: each parameter is
    then a list, and the function returns a list with one result for each input. Callers give and get single values.

    It stands below `@app.function()`, or makes a method of an `@app.cls()` class, which then can have no other.
    Raises `InvalidError`.
    """
    wanted = checked_batching(max_batch_size, wait_ms)

    def decorate(raw: Callable[..., Any]) -> Any:
        from potluck.cls import method

        _check_plain(raw, "batched")
        if yields(raw):
            raise InvalidError(f"{raw.__name__} is a generator, which cannot be batched.", fix="Return a list.")
        return method()(_mark(raw, wanted)) if is_method(raw) else _mark(raw, wanted)

    return decorate


def checked_concurrency(max_inputs: int | None, target_inputs: int | None) -> Sharing:
    """Raises `InvalidError`."""
    if max_inputs is None:
        raise InvalidError("potluck.concurrent() needs max_inputs=.", fix="For example max_inputs=10.")
    _check_whole("max_inputs", max_inputs, 1, INPUTS_MAX)
    if target_inputs is not None:
        _check_whole("target_inputs", target_inputs, 1, max_inputs)
    return Sharing(max_inputs=max_inputs, target_inputs=target_inputs or 0)


def checked_batching(max_batch_size: int, wait_ms: int) -> Sharing:
    """Raises `InvalidError`."""
    _check_whole("max_batch_size", max_batch_size, 1, BATCH_MAX)
    _check_whole("wait_ms", wait_ms, 0, WAIT_MS_MAX)
    return Sharing(batch_size=max_batch_size, batch_wait_ms=wait_ms)


def sharing_of(decorated: object) -> Sharing:
    """What the decorators asked for."""
    # Not what a base class has.
    marked: Sharing = getattr(decorated, "__dict__", {}).get(_MARK, ALONE)
    return marked


def joined(one: Sharing, other: Sharing) -> Sharing:
    """Both at once, where they do not name the same."""
    batch = one if one.batch_size else other
    several = one if one.max_inputs > 1 else other
    return Sharing(several.max_inputs, several.target_inputs, batch.batch_size, batch.batch_wait_ms)


def yields(raw: object) -> bool:
    """Whether it is a generator function, async or not."""
    flags: int = getattr(getattr(raw, "__code__", None), "co_flags", 0)
    return bool(flags & (CO_GENERATOR | CO_ASYNC_GENERATOR))


def is_method(raw: object) -> bool:
    """Whether a function is defined in a class."""
    qualname: str = getattr(raw, "__qualname__", "")
    return "." in qualname.rpartition("<locals>.")[2]


def _check_whole(name: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidError(f"{name}={value!r} is out of range.", fix=f"Give a whole number from {least} to {most}.")


def _check_plain(decorated: object, name: str) -> None:
    if not callable(decorated) or hasattr(decorated, "get_raw_f"):
        raise InvalidError(
            f"@potluck.{name}() decorates plain functions and classes.",
            fix="Write it with parentheses, directly above the definition and below @app.function() or @app.cls().",
        )


def _mark(decorated: T, wanted: Sharing) -> T:
    before = sharing_of(decorated)
    if (before.batch_size and wanted.batch_size) or (before.max_inputs > 1 and wanted.max_inputs > 1):
        raise InvalidError("A function can be batched once, and concurrent once.", fix="Leave one out.")
    setattr(decorated, _MARK, joined(before, wanted))
    return decorated
