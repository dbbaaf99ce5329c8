"""The ways to call a function on the mesh, each with a twin for asyncio: `f.remote`, `f.remote.aio`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar, cast

from potluck.errors import InvalidError

# Whatever calls need is imported by the first call: `import potluck` happens in every script, notebook and sandbox.
if TYPE_CHECKING:
    from potluck.functions import Function

P = ParamSpec("P")
R = TypeVar("R", covariant=True)


class Remote(Generic[P, R]):
    """`f.remote(…)` runs the function on the mesh and waits; `await f.remote.aio(…)` does so in asyncio."""

    def __init__(self, function: Function[P, R]) -> None:
        self._function = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        from potluck import outcomes
        from potluck.verify import prepared

        running, payload = self._function._begin(args, kwargs)
        client = running.client
        call = client.open_call(running.spec(self._function), running.limit(self._function), prepared(self._function))
        try:
            client.add_input(call, payload, last=True)
            return cast(R, outcomes.value(client.take(call)))
        finally:
            client.close_call(call, "the caller left")

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> R:
        from potluck import outcomes
        from potluck.verify import prepared

        running, payload = self._function._begin(args, kwargs)
        client = await running.async_client()
        call = client.open_call(
            await running.spec_async(self._function), running.limit(self._function), prepared(self._function)
        )
        try:
            await client.add_input(call, payload, last=True)
            return cast(R, outcomes.value(await client.take(call)))
        finally:
            client.close_call(call, "the caller left")


class Map(Generic[R]):
    """`f.map(xs, ys)` calls `f(x, y)` for each pair and yields the results, in order unless told otherwise.

    Exceptions that it returns are never wrapped, which is all that `wrap_returned_exceptions` can say.
    """

    def __init__(self, function: Function[Any, R]) -> None:
        self._function = function

    def __call__(
        self,
        *iterables: Iterable[Any],
        kwargs: Mapping[str, Any] | None = None,
        order_outputs: bool = True,
        return_exceptions: bool = False,
        wrap_returned_exceptions: Literal[False] | None = None,
        max_gpu_seconds: float | None = None,
        max_cost: float | None = None,
    ) -> Iterator[R]:
        from potluck import mapping

        inputs = self._function._payloads(zip(*iterables, strict=False), kwargs)
        most = max_gpu_seconds, max_cost
        return mapping.run(self._function, inputs, ordered=order_outputs, keep_errors=return_exceptions, most=most)

    def aio(
        self,
        *iterables: Iterable[Any],
        kwargs: Mapping[str, Any] | None = None,
        order_outputs: bool = True,
        return_exceptions: bool = False,
        wrap_returned_exceptions: Literal[False] | None = None,
        max_gpu_seconds: float | None = None,
        max_cost: float | None = None,
    ) -> AsyncIterator[R]:
        from potluck import mapping

        inputs = self._function._payloads(zip(*iterables, strict=False), kwargs)
        most = max_gpu_seconds, max_cost
        return mapping.run_async(
            self._function, inputs, ordered=order_outputs, keep_errors=return_exceptions, most=most
        )


class StarMap(Generic[R]):
    """`f.starmap([(1, 2), (3, 4)])` calls `f(1, 2)` and `f(3, 4)`."""

    def __init__(self, function: Function[Any, R]) -> None:
        self._function = function

    def __call__(
        self,
        input_iterator: Iterable[Iterable[Any]],
        /,
        *,
        kwargs: Mapping[str, Any] | None = None,
        order_outputs: bool = True,
        return_exceptions: bool = False,
        wrap_returned_exceptions: Literal[False] | None = None,
        max_gpu_seconds: float | None = None,
        max_cost: float | None = None,
    ) -> Iterator[R]:
        from potluck import mapping

        inputs = self._function._payloads(input_iterator, kwargs)
        most = max_gpu_seconds, max_cost
        return mapping.run(self._function, inputs, ordered=order_outputs, keep_errors=return_exceptions, most=most)

    def aio(
        self,
        input_iterator: Iterable[Iterable[Any]],
        /,
        *,
        kwargs: Mapping[str, Any] | None = None,
        order_outputs: bool = True,
        return_exceptions: bool = False,
        wrap_returned_exceptions: Literal[False] | None = None,
        max_gpu_seconds: float | None = None,
        max_cost: float | None = None,
    ) -> AsyncIterator[R]:
        from potluck import mapping

        inputs = self._function._payloads(input_iterator, kwargs)
        most = max_gpu_seconds, max_cost
        return mapping.run_async(
            self._function, inputs, ordered=order_outputs, keep_errors=return_exceptions, most=most
        )


class ForEach:
    """`f.for_each(xs)` runs `f(x)` for its effects; results are dropped, the first exception is raised."""

    def __init__(self, function: Function[Any, Any]) -> None:
        self._function = function

    def __call__(
        self, *iterables: Iterable[Any], kwargs: Mapping[str, Any] | None = None, ignore_exceptions: bool = False
    ) -> None:
        for _ in self._function.map(
            *iterables, kwargs=kwargs, order_outputs=False, return_exceptions=ignore_exceptions
        ):
            pass

    async def aio(
        self, *iterables: Iterable[Any], kwargs: Mapping[str, Any] | None = None, ignore_exceptions: bool = False
    ) -> None:
        async for _ in self._function.map.aio(
            *iterables, kwargs=kwargs, order_outputs=False, return_exceptions=ignore_exceptions
        ):
            pass


class RemoteGen(Generic[P]):
    """`for item in g.remote_gen(…)` runs a generator on the mesh, `async for item in g.remote_gen.aio(…)` in asyncio.

    It runs a little ahead of whoever takes its items, and ends when nobody does any more.
    """

    def __init__(self, function: Function[P, Any]) -> None:
        self._function = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
        from potluck import generators

        self._check()
        return generators.run(self._function, self._function._payload(args, kwargs))

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[Any]:
        from potluck import generators

        self._check()
        return generators.run_async(self._function, self._function._payload(args, kwargs))

    def _check(self) -> None:
        name = self._function.name
        if not self._function._yields:
            raise InvalidError(f"{name} is no generator.", fix=f"Write {name}.remote(…), which returns its result.")
