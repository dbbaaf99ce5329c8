"""`App`: a group of functions that run together."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, Unpack, cast, dataclass_transform, overload

from potluck.absent import Absent
from potluck.cls import Method, move, register, web_methods
from potluck.errors import InvalidError
from potluck.functions import Function
from potluck.image import Image
from potluck.mounts import checked_mounts
from potluck.options import ClassSettings, FunctionSettings, Options, ServerSettings
from potluck.parameters import parameter
from potluck.place import is_local
from potluck.secret import Secret
from potluck.sharing import sharing_of
from potluck.variants import equip

if TYPE_CHECKING:
    from potluck.running import Link, Running
    from potluck.server import Server
    from potluck.volume import Volume

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)


class Decorator(Protocol):
    """What `@app.function(…)` returns: keeps the signature; an `async def` counts as what it returns when awaited."""

    @overload
    def __call__(self, raw: Callable[P, Coroutine[Any, Any, R]], /) -> Function[P, R]: ...
    @overload
    def __call__(self, raw: Callable[P, R], /) -> Function[P, R]: ...


class LocalEntrypoint:
    """A function that `potluck run` calls on this machine, its parameters taken from the command line."""

    def __init__(self, app: App, raw: Callable[..., Any]) -> None:
        self.app, self.raw = app, raw
        self.__name__, self.__doc__ = raw.__name__, raw.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.raw(*args, **kwargs)


class App(Absent):
    """`name` shows up in status and receipts: letters, digits, `-`, `_` and `.`, at most 64.

    `image`, `secrets`, `volumes` and `include_source` are those of all its functions, unless they have their own;
    secrets and volumes add up.
    Raises `InvalidError`.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        image: Image | None = None,
        secrets: Collection[Secret] = (),
        include_source: bool = True,
        tags: Mapping[str, str] | None = None,
        volumes: Mapping[str | PurePosixPath, Volume] | None = None,
    ) -> None:
        name = "app" if name is None else name
        _check_absent(tags=tags)
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
            raise InvalidError(
                f"{name!r} is not a name for an app.", fix="Use up to 64 letters, digits, '-', '_' and '.'."
            )
        self.name = name
        self._image, self._secrets, self._include_source = image, tuple(secrets), include_source
        self._volumes = dict(checked_mounts(volumes))
        self._run: Running | None = None
        self.registered_functions: dict[str, Function[..., Any]] = {}
        self.registered_classes: dict[str, type] = {}
        self.registered_entrypoints: dict[str, LocalEntrypoint] = {}

    def function(self, **settings: Unpack[FunctionSettings]) -> Decorator:
        """Make a function runnable on the mesh. `FunctionSettings` says what each parameter means.

        Raises `InvalidError` for values that cannot work, and for what Modal has and a mesh cannot have.
        """
        options = self._options(settings)

        def decorate(raw: Callable[..., Any]) -> Function[..., Any]:
            if isinstance(raw, type):
                raise InvalidError(f"{raw.__name__} is a class.", fix="Decorate it with @app.cls().")
            if not callable(raw) or isinstance(raw, Function):
                raise InvalidError("@app.function() decorates plain functions.", fix="Write it with parentheses, once.")
            if isinstance(raw, Method):
                raise InvalidError(
                    "@app.function() cannot decorate methods.", fix="Decorate the class with @app.cls()."
                )
            function: Function[..., Any] = Function(self, raw, options.shared(sharing_of(raw)))
            self._check_new(function.name, "functions", "Give a name=.")
            self.registered_functions[function.name] = function
            return function

        return cast(Decorator, decorate)

    @dataclass_transform(field_specifiers=(parameter,), kw_only_default=True)
    def cls(self, **settings: Unpack[ClassSettings]) -> Callable[[C], C]:
        """Make the methods of a class runnable on the mesh, on objects that are made once in each worker.

        `ClassSettings` says what each parameter means; all hold for each worker, but `timeout` and `retries` for each
        input of a method. Raises `InvalidError` for values that cannot work, and for a class with an `__init__` of its
        own.
        """
        options = self._options(settings)

        def decorate(raw: C) -> C:
            register(self, raw, options)
            equip(raw)
            self._check_new(raw.__name__, "classes", "Rename one.")
            self.registered_classes[raw.__name__] = raw
            for each in web_methods(raw):
                self.registered_functions[each.name] = each
            return raw

        return decorate

    def server(
        self, *, port: int = 8000, startup_timeout: int = 30, unauthenticated: bool = False,
        max_concurrency: int | None = None, target_concurrency: int | None = None,
        compute_region: str | Sequence[str] | None = None, routing_region: object = None,
        name: str | None = None, h2_enabled: bool = False, scaleup_window: object = None, exit_grace_period: int = 0,
        **settings: Unpack[ServerSettings],
    ) -> Callable[[type], Server]:  # fmt: skip
        """Pass requests on to the HTTP server that a class starts in its `@potluck.enter()` method, on `port`, within
        `startup_timeout` seconds. It has no methods to call; each worker has a sandbox of its own.

        Who asks needs a token (`potluck token`), unless it is `unauthenticated`. A worker answers `max_concurrency`
        requests at once, 1000 unless given; more are started when each has `target_concurrency`. `compute_region` is
        what `region` is elsewhere; `routing_region` is passed over. Raises `InvalidError`.
        """
        from potluck.server import METHOD, Server, checked, prepare

        checked(name=name, h2_enabled=h2_enabled, scaleup_window=scaleup_window, exit_grace_period=exit_grace_period)
        given: Any = {**settings, "startup_timeout": startup_timeout, "region": compute_region}

        def decorate(raw: type) -> Server:
            private = not unauthenticated
            made = prepare(raw, port, startup_timeout, private, max_concurrency, target_concurrency)
            cls = self.cls(**given)(made)
            return Server(vars(cls)[METHOD], cls)

        return decorate

    def _options(self, settings: Mapping[str, Any]) -> Options:
        """Settings with what the whole app has."""
        given = {name: value for name, value in settings.items() if value is not None}
        secrets = [*self._secrets, *given.get("secrets", ())]
        volumes = {**self._volumes, **dict(checked_mounts(given.get("volumes")))}
        common = {"image": self._image, "include_source": self._include_source}
        added = {"secrets": secrets, "volumes": volumes}
        return Options(common | given | {name: value for name, value in added.items() if value})

    @staticmethod
    def lookup(name: str, *, environment_name: str | None = None, create_if_missing: bool = False) -> App:
        """An app of this name, for sandboxes. Nothing need be there: an app is its name. `environment_name` and
        `create_if_missing` are passed over."""
        return App(name)

    def include(self, other_app: App) -> App:
        """Take over the functions and classes of another app, which need this one to run from then on. Returns this
        one. Raises `InvalidError` when both have one of a name."""
        for name, function in other_app.registered_functions.items():
            self._check_new(name, "functions", "Give a name=.")
            self.registered_functions[name] = function
            function._app = self
        for name, cls in other_app.registered_classes.items():
            self._check_new(name, "classes", "Rename one.")
            self.registered_classes[name] = cls
            move(cls, self)
        return self

    def _check_new(self, name: str, kind: str, fix: str) -> None:
        if name in self.registered_functions or name in self.registered_classes:
            raise InvalidError(f"The app {self.name} has two {kind} named {name}.", fix=fix)

    def local_entrypoint(self, *, name: str | None = None) -> Callable[[Callable[..., Any]], LocalEntrypoint]:
        """Mark what `potluck run` starts."""

        def decorate(raw: Callable[..., Any]) -> LocalEntrypoint:
            entrypoint = LocalEntrypoint(self, raw)
            self.registered_entrypoints[name or raw.__name__] = entrypoint
            return entrypoint

        return decorate

    @contextmanager
    def run(self, *, detach: bool = False, show_progress: bool | None = None, build_on: str = "") -> Iterator[App]:
        """Connect to the local node (starting one when there is none) for as long as the block lasts.

        `build_on` is the name or id of a peer that is to build the images (Potluck's own). `detach` changes nothing:
        spawned calls always go on, others never do without the program that waits for them.
        Raises `NodeStartError` when no node runs and none can be started.
        """
        if self._run:
            raise InvalidError(f"The app {self.name} is running already.")
        from potluck.running import Running

        self._run = Running(self, show_progress, build_on)
        try:
            self._run.keep_warm()
            yield self
        finally:
            run, self._run = self._run, None
            run.close()

    def deploy(
        self, *, name: str | None = None, show_progress: bool | None = None, tag: str = "", strategy: str = "rolling",
        comment: str = "", build_on: str = "",
    ) -> App:  # fmt: skip
        """Record all functions and classes of the app on the local node, in place of what was deployed before under its
        name, or under `name`. They are found there by `Function.from_name` and `Cls.from_name`, until
        `potluck app stop`, also after a restart.

        With the `strategy` "rolling" the new version takes over once each function that is in use has a worker, and the
        one before finishes what it has; with "recreate" at once. `tag` and `comment` are kept in the history.
        Raises `InvalidError` for an app without any, `ImageBuildError`, and `ExecutionError` when a function that is in
        use cannot be started: then the version before stays.
        """
        from potluck.deploy import Note, deploy

        note = Note(tag, comment, strategy)
        deploy(self, name=name or "", show_progress=show_progress, build_on=build_on, note=note)
        return self

    def _require_run(self, function: str) -> Link:
        if self._run is None and not is_local():
            from potluck import nested

            return cast("Link", nested.link())
        if self._run is None:
            raise InvalidError(
                f"{function} cannot run remotely: its app {self.name} is not running.",
                fix="Start the program with `potluck run`, or wrap the call in `with app.run():`.",
            )
        return self._run

    def __reduce__(self) -> tuple[Any, ...]:
        return (App, (self.name,))


def _check_absent(**given: object) -> None:
    for name, value in given.items():
        if value:
            raise InvalidError(f"App({name}=…) is not possible yet.", fix=f"Leave {name} out.")
