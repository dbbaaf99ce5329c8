"""`Function`: what `@app.function` makes of a plain Python function, with its signature kept."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, TypeVar, Unpack, cast

from potluck.absent import Absent
from potluck.calls import Spawn, SpawnMap, WithAio
from potluck.errors import InvalidError
from potluck.place import is_local
from potluck.sharing import Sharing, checked_batching, checked_concurrency, joined, yields
from potluck.ways import ForEach, Map, Remote, RemoteGen, StarMap
from potluck.web import Web, labelled, web_of

# Whatever calls need is imported by the first call: `import potluck` happens in every script, notebook and sandbox.
if TYPE_CHECKING:
    from potluck.app import App
    from potluck.options import CallSettings, Options
    from potluck.running import Link
    from potluck.verify import Prepared

P = ParamSpec("P")
R = TypeVar("R", covariant=True)


class FunctionStats(NamedTuple):
    """Inputs that wait for a worker, and workers that run some or are kept for this machine."""

    backlog: int
    num_total_runners: int


class Function(Absent, Generic[P, R]):
    """A function that can run on the mesh. Made by `@app.function()`, or found with `from_name`; never by hand."""

    # Packed parameters of the object, for the methods of a class.
    _parameters = b""
    # How many arguments of an input go before the function's own.
    _leading = 0
    # How its results are verified, once a call needed it.
    _prepared: Prepared | None = None
    # Whether it has other settings than it was registered with; and whether it was found by name.
    _changed = _is_found = False

    def __init__(self, app: App, raw: Callable[..., Any], options: Options) -> None:
        functools.update_wrapper(self, raw)
        self._raw = raw
        self._prepare(app, options)
        if options.sharing.batch_size and self._yields:
            raise InvalidError(f"{self.name} is a generator, which cannot be batched.", fix="Return a list.")
        # Of a class, methods that cannot be are not.
        if options.verify and not self._leading and (self._web or self._yields or options.sharing.batch_size):
            raise InvalidError(
                f"{self.name} cannot be verified.",
                why="it answers requests, is a generator or batched, whose results are not compared",
                fix="Leave verify= out, or return one value.",
            )
        if options.schedule and (self._web or self._yields or _needs_arguments(raw)):
            raise InvalidError(
                f"{self.name} cannot run by itself.",
                why="it answers requests, is a generator, or has parameters without a default",
                fix="Give all its parameters defaults, and return a value.",
            )
        if options.sharing.batch_size and self._web:
            raise InvalidError(f"{self.name} answers requests, which cannot be batched.", fix="Leave @batched out.")

    def _prepare(self, app: App, options: Options) -> None:
        self._app, self._options = app, options
        self.remote: Remote[P, R] = Remote(self)
        self.remote_gen: RemoteGen[P] = RemoteGen(self)
        self.map: Map[R] = Map(self)
        self.starmap: StarMap[R] = StarMap(self)
        self.for_each = ForEach(self)
        self.spawn: Spawn[P, R] = Spawn(self)
        self.spawn_map: SpawnMap[R] = SpawnMap(self)
        self.get_current_stats = WithAio(self._get_current_stats)
        self.update_autoscaler = WithAio(self._update_autoscaler)
        self.hydrate = WithAio(self._hydrate)
        self.get_web_url = WithAio(self._get_web_url)

    @staticmethod
    def from_name(app_name: str, name: str, *, environment_name: str | None = None) -> Function[..., Any]:
        """The function of an app that was deployed on this machine. Raises `NotFoundError` when it is used and there is
        none. `environment_name` is passed over: there is one environment, the local node."""
        from potluck.found import FoundFunction

        return FoundFunction(app_name, name)

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
    def _key(self) -> tuple[str, bytes, Options]:
        return self._pool, self._parameters, self._options

    @property
    def _origin(self) -> Callable[..., Any]:
        """What travels to the worker."""
        return self._raw

    @property
    def _yields(self) -> bool:
        """Whether it is a generator."""
        wanted = self._options.is_generator
        return yields(self._raw) if wanted is None else wanted

    @property
    def _web(self) -> Web | None:
        """How it answers requests, if it does."""
        found = web_of(self._raw)
        return labelled(found, self.name) if found else None

    @property
    def _pool_yields(self) -> bool:
        """Whether anything that its workers run may be a generator."""
        return self._yields

    def get_raw_f(self) -> Callable[P, R]:
        """The plain function."""
        return self._raw

    def local(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here, as if it were not decorated (an `async def` returns its coroutine)."""
        return cast(R, self._raw(*args, **kwargs))

    def with_options(self, **settings: Unpack[CallSettings]) -> Function[P, R]:
        """The same function with other settings, and so with workers of its own. Raises `InvalidError`."""
        return self._with(self._options.changed(settings))

    def with_concurrency(self, *, max_inputs: int, target_inputs: int | None = None) -> Function[P, R]:
        """The same function as `@potluck.concurrent` would make it. Raises `InvalidError`."""
        return self._with_sharing(checked_concurrency(max_inputs, target_inputs))

    def with_batching(self, *, max_batch_size: int, wait_ms: int) -> Function[P, R]:
        """The same function as `@potluck.batched` would make it. Raises `InvalidError`."""
        return self._with_sharing(checked_batching(max_batch_size, wait_ms))

    def _with_sharing(self, sharing: Sharing) -> Function[P, R]:
        return self._with(self._options.shared(joined(sharing, self._options.sharing)))

    def _with(self, options: Options) -> Function[P, R]:
        changed: Function[P, R] = Function(self._app, self._raw, options)
        changed._changed = True
        return changed

    def _get_current_stats(self) -> FunctionStats:
        """How much waits for workers of this function, and how many there are, as the local node knows it."""
        from potluck.wire.control import AskStats, Stats

        link = self._link()
        spec = link.spec(self)
        found = link.client.ask(lambda number: AskStats(number, spec), Stats)
        return FunctionStats(found.backlog, found.runners)

    def _update_autoscaler(
        self,
        *,
        min_containers: int | None = None,
        max_containers: int | None = None,
        buffer_containers: int | None = None,
        scaledown_window: int | None = None,
    ) -> None:
        """Change how many workers there are to be, from now on and for all calls from this machine; what is None stays
        as it is. Raises `InvalidError`."""
        from potluck.options import checked_scaling

        given = {
            "min_containers": min_containers,
            "max_containers": max_containers,
            "buffer_containers": buffer_containers,
            "scaledown_window": scaledown_window,
        }
        link = self._link()
        link.scale(self, checked_scaling(given))

    def _hydrate(self) -> Function[P, R]:
        """Have the image built, or the function looked up, now instead of by the first call. Returns itself."""
        self._link().spec(self)
        return self

    def _get_web_url(self) -> str | None:
        """Where it answers requests, while its app runs or is deployed; None for a function that is called."""
        if self._web is None:
            return None
        from potluck.wire.apps import AppFacts, AskApp

        facts = self._link().client.ask(lambda number: AskApp(number, self._app.name), AppFacts)
        return dict(facts.urls).get(self.name)

    @property
    def web_url(self) -> str | None:
        """As `get_web_url()`."""
        return self._get_web_url()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        raise InvalidError(
            f"{self.name}() was called like a plain function.",
            fix=f"Write {self.name}.remote(…) to run it on the mesh, or {self.name}.local(…) to run it here.",
        )

    def __repr__(self) -> str:
        return f"<Function {self._app.name}.{self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # Inside a sandbox other functions of the app are known by their names; options and runs stay here.
        return (_detached, (self._app.name, self._raw, self._options.name or "", self._changed))

    def _link(self) -> Link:
        """The connection by which it is called. Raises `InvalidError` while its app is not running."""
        return self._app._require_run(self.name)

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Link, bytes]:
        self._check_returns("remote")
        return self._link(), self._payload(args, kwargs)

    def _check_returns(self, way: str) -> None:
        """Raises `InvalidError` for a generator, and for what answers requests."""
        if self._web:
            raise InvalidError(
                f"{self.name} answers requests, and cannot be called.",
                fix=f"Send a request to {self.name}.get_web_url(), or call {self.name}.local(…).",
            )
        if self._yields:
            raise InvalidError(
                f"{self.name} is a generator, which .{way} cannot call.",
                fix=f"Write `for item in {self.name}.remote_gen(…)`.",
            )

    def _payloads(self, tuples: Iterable[Iterable[Any]], kwargs: Mapping[str, Any] | None) -> Iterator[bytes]:
        self._check_returns("map")
        shared = dict(kwargs or {})
        return (self._payload(tuple(each), shared) for each in tuples)

    def _payload(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        from potluck.serialize import dumps

        what = f"arguments of {self.name}()"
        if not is_local():
            from potluck import asking

            return asking.dump((args, dict(kwargs)), what)
        return dumps((args, dict(kwargs)), what)


def _detached(app_name: str, raw: Callable[..., Any], name: str = "", changed: bool = False) -> Function[..., Any]:
    from potluck.app import App

    function: Function[..., Any] = App(app_name).function(name=name or None)(raw)
    function._changed = changed
    return function


def _needs_arguments(raw: Callable[..., Any]) -> bool:
    import inspect

    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    given = inspect.signature(raw).parameters.values()
    return any(each.default is each.empty and each.kind not in kinds for each in given)
