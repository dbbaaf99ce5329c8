"""Functions that call others."""

import asyncio
import os
import time
from collections.abc import Iterator

import potluck

app = potluck.App("nesting")


class OddError(Exception):
    """An exception of the program's own."""


@app.function(timeout=60)
def inner(number: int) -> int:
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number * number


@app.function(timeout=60)
def outer(number: int) -> int:
    return inner.remote(number) + 1


@app.function(timeout=60)
def catches() -> str:
    try:
        inner.remote(-1)
    except ValueError as error:
        return f"caught {error}"
    return "nothing was raised"


@app.function(timeout=60)
def maps(count: int) -> list[int]:
    return [*inner.map(range(count)), *inner.starmap([(each,) for each in range(3)])]


@app.function(timeout=60)
async def gathers(count: int) -> list[int]:
    found = await asyncio.gather(*(inner.remote.aio(each) for each in range(count)))
    return [*found, *[each async for each in inner.map.aio(range(3))]]


@app.function(timeout=60)
def counts(count: int) -> Iterator[int]:
    yield from range(count)


@app.function(timeout=60)
def drains(count: int) -> tuple[int, int]:
    first = next(iter(counts.remote_gen(10**9)))
    return first, sum(counts.remote_gen(count))


@app.function(timeout=60)
def factorial(number: int) -> int:
    return number * factorial.remote(number - 1) if number > 1 else 1


@app.function(timeout=60)
def even(number: int) -> bool:
    return True if number == 0 else odd.remote(number - 1)


@app.function(timeout=60)
def odd(number: int) -> bool:
    return False if number == 0 else even.remote(number - 1)


@app.function(timeout=60)
def spawns(number: int) -> tuple[int, str]:
    call = inner.spawn(number)
    return call.get(), call.object_id


@app.cls(timeout=60)
class Scale:
    factor: int = potluck.parameter()

    @potluck.method()
    def times(self, number: int) -> int:
        return self.factor * number


@app.function(timeout=60)
def raises() -> None:
    raise OddError("odd", 7)


@app.function(timeout=60)
def catches_odd() -> tuple[str, int]:
    try:
        raises.remote()
    except OddError as error:
        return error.args  # type: ignore[return-value]
    return "nothing", 0


@app.function(timeout=60)
def scales(number: int) -> int:
    return Scale(factor=3).times.remote(number)


@app.function(timeout=60)
def by_name(app_name: str, name: str, number: int) -> int:
    return potluck.Function.from_name(app_name, name).remote(number)


@app.function(timeout=60)
def waits_for(shelf: potluck.Dict) -> None:
    sleeps.remote(shelf)


@app.function(timeout=60)
def sleeps(shelf: potluck.Dict) -> None:
    shelf["began"] = True
    time.sleep(600)


@app.function(timeout=60)
def sends_object() -> None:
    echo.remote(object())  # type: ignore[arg-type]


@app.function(timeout=60)
def changes() -> int:
    return inner.with_options(timeout=5).remote(1)


@app.function(timeout=60, retries=2)
def tries(shelf: potluck.Dict) -> int:
    """Fails the first time, after a call."""
    found = inner.remote(5)
    if shelf.put("tried", True, skip_if_exists=True):
        raise OddError(f"{found} once")
    return found


@app.function(timeout=60)
def places() -> tuple[str | None, str | None]:
    return potluck.current_function_call_id(), potluck.current_input_id()


@app.function(timeout=60)
@potluck.concurrent(max_inputs=4)
async def places_beside(number: int) -> tuple[str | None, str | None, str | None]:
    before = potluck.current_input_id()
    await inner.remote.aio(number)
    return potluck.current_function_call_id(), before, potluck.current_input_id()


@app.function(timeout=60)
@potluck.concurrent(max_inputs=4)
def side_by_side(number: int) -> int:
    return inner.remote(number)


@app.function(timeout=60, image=potluck.Image.local_python().env({"WHICH": "other"}))
def which() -> str:
    return os.environ["WHICH"]


@app.function(timeout=60)
def asks_which() -> str:
    return which.remote()


@app.function(timeout=60)
def large(mib: int) -> int:
    return len(echo.remote(bytes(mib << 20)))


@app.function(timeout=60)
def echo(data: bytes) -> bytes:
    return data
