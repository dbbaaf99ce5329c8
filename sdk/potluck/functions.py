"""`Function`: what `@app.function` makes of a plain Python function, with its signature kept."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast

from potluck.calls import Spawn, SpawnMap
from potluck.errors import InvalidError
from potluck.gpus import checked_gpus
from potluck.image import Image
from potluck.network import asked_network
from potluck.retries import Retries, checked
from potluck.tiers import checked_tier

# Whatever calls need is imported by the first call: `import potluck` happens in every script, notebook and sandbox.
if TYPE_CHECKING:
    from potluck.app import App
    from potluck.running import Running

P = ParamSpec("P")
R = TypeVar("R", covariant=True)

# A function that runs longer than a day should checkpoint; as Modal's limit.
TIMEOUT_S_MAX = 24 * 3600

# As in the module `inspect`, which is slow to import.
CO_GENERATOR, CO_ASYNC_GENERATOR = 0x20, 0x200


class Options:
    """Checked parameters of `@app.function`."""

    def __init__(
        self, *, name: str | None, image: Image, gpu: str | list[str] | None, cpu: float | None, memory: int | None,
        timeout: float, retries: int | Retries | None, env: Mapping[str, str | None] | None, serialized: bool,
        sandbox: str = "", block_network: bool | None = None, outbound_domain_allowlist: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        if cpu is not None and not 0.001 <= cpu <= 1024:
            raise InvalidError(f"cpu={cpu} is not a number of cores.", fix="Give a number such as 0.5 or 4.")
        if memory is not None and not 1 <= memory <= 1 << 24:
            raise InvalidError(f"memory={memory} is not a size.", fix="Give mebibytes, for example memory=2048.")
        if not 1 <= timeout <= TIMEOUT_S_MAX:
            raise InvalidError(f"timeout={timeout} is out of range.", fix=f"Give seconds, from 1 to {TIMEOUT_S_MAX}.")
        self.name, self.image, self.serialized = name, image, serialized
        self.gpu = checked_gpus(gpu)
        self.cpu, self.memory, self.timeout = cpu, memory, timeout
        self.retries = checked(retries)
        self.sandbox = checked_tier(sandbox, self.gpu)
        self.network = asked_network(block_network, outbound_domain_allowlist)
        self.env = tuple(sorted((key, value) for key, value in (env or {}).items() if value is not None))


class Remote(Generic[P, R]):
    """`f.remote(…)` runs the function on the mesh and waits; `await f.remote.aio(…)` does so in asyncio."""

    def __init__(self, function: Function[P, R]) -> None:
        self._function = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        from potluck import outcomes

        running, payload = self._function._begin(args, kwargs)
        client = running.client
        call = client.open_call(running.spec(self._function))
        try:
            client.add_input(call, payload)
            client.end_inputs(call)
            return cast(R, outcomes.value(client.take(call)))
        finally:
            client.close_call(call, "the caller left")

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> R:
        from potluck import outcomes

        running, payload = self._function._begin(args, kwargs)
        client = await running.async_client()
        call = client.open_call(await running.spec_async(self._function))
        try:
            await client.add_input(call, payload)
            await client.end_inputs(call)
            return cast(R, outcomes.value(await client.take(call)))
        finally:
            client.close_call(call, "the caller left")


class Map(Generic[R]):
    """`f.map(xs, ys)` calls `f(x, y)` for each pair and yields the results, in order unless told otherwise."""

    def __init__(self, function: Function[Any, R]) -> None:
        self._function = function

    def __call__(
        self,
        *iterables: Iterable[Any],
        kwargs: Mapping[str, Any] | None = None,
        order_outputs: bool = True,
        return_exceptions: bool = False,
    ) -> Iterator[R]:
        from potluck import mapping

        inputs = self._function._payloads(zip(*iterables, strict=False), kwargs)
        return mapping.run(self._function, inputs, ordered=order_outputs, keep_errors=return_exceptions)

    def aio(
        self,
        *iterables: Iterable[Any],
        kwargs: Mapping[str, Any] | None = None,
        order_outputs: bool = True,
        return_exceptions: bool = False,
    ) -> AsyncIterator[R]:
        from potluck import mapping

        inputs = self._function._payloads(zip(*iterables, strict=False), kwargs)
        return mapping.run_async(self._function, inputs, ordered=order_outputs, keep_errors=return_exceptions)


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
    ) -> Iterator[R]:
        from potluck import mapping

        inputs = self._function._payloads(input_iterator, kwargs)
        return mapping.run(self._function, inputs, ordered=order_outputs, keep_errors=return_exceptions)

    def aio(
        self,
        input_iterator: Iterable[Iterable[Any]],
        /,
        *,
        kwargs: Mapping[str, Any] | None = None,
        order_outputs: bool = True,
        return_exceptions: bool = False,
    ) -> AsyncIterator[R]:
        from potluck import mapping

        inputs = self._function._payloads(input_iterator, kwargs)
        return mapping.run_async(self._function, inputs, ordered=order_outputs, keep_errors=return_exceptions)


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


def refuse_generator(raw: Callable[..., Any]) -> None:
    """Raises `InvalidError`."""
    flags = getattr(getattr(raw, "__code__", None), "co_flags", 0)
    if flags & (CO_GENERATOR | CO_ASYNC_GENERATOR):
        raise InvalidError(
            f"{raw.__name__} is a generator, which cannot run remotely yet.", fix="Return a list instead."
        )


class Function(Generic[P, R]):
    """A function that can run on the mesh. Made by `@app.function()`, never by hand."""

    # Packed parameters of the object, for the methods of a class.
    _parameters = b""

    def __init__(self, app: App, raw: Callable[..., Any], options: Options) -> None:
        refuse_generator(raw)
        functools.update_wrapper(self, raw)
        self._app, self._raw, self._options = app, raw, options
        self.remote: Remote[P, R] = Remote(self)
        self.map: Map[R] = Map(self)
        self.starmap: StarMap[R] = StarMap(self)
        self.for_each = ForEach(self)
        self.spawn: Spawn[P, R] = Spawn(self)
        self.spawn_map: SpawnMap[R] = SpawnMap(self)

    @property
    def name(self) -> str:
        """The name under which the app knows it."""
        return self._options.name or self._raw.__name__

    @property
    def app(self) -> App:
        return self._app

    @property
    def _pool(self) -> str:
        """Under which name workers are kept: all methods of an object share theirs."""
        return self.name

    @property
    def _key(self) -> tuple[str, bytes]:
        return self._pool, self._parameters

    @property
    def _origin(self) -> Callable[..., Any]:
        """What travels to the worker."""
        return self._raw

    def get_raw_f(self) -> Callable[P, R]:
        """The plain function."""
        return self._raw

    def local(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here, as if it were not decorated (an `async def` returns its coroutine)."""
        return cast(R, self._raw(*args, **kwargs))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        raise InvalidError(
            f"{self.name}() was called like a plain function.",
            fix=f"Write {self.name}.remote(…) to run it on the mesh, or {self.name}.local(…) to run it here.",
        )

    def __repr__(self) -> str:
        return f"<Function {self._app.name}.{self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # Inside a sandbox other functions of the app are there to be run locally; options and runs stay here.
        return (_detached, (self._app.name, self._raw))

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Running, bytes]:
        running = self._app._require_run(self.name)
        return running, self._payload(args, kwargs)

    def _payloads(self, tuples: Iterable[Iterable[Any]], kwargs: Mapping[str, Any] | None) -> Iterator[bytes]:
        shared = dict(kwargs or {})
        return (self._payload(tuple(each), shared) for each in tuples)

    def _payload(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        from potluck.serialize import dumps

        return dumps((args, dict(kwargs)), f"arguments of {self.name}()")


def _detached(app_name: str, raw: Callable[..., Any]) -> Function[..., Any]:
    from potluck.app import App

    return App(app_name).function()(raw)
