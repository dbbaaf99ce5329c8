"""`App`: a group of functions that run together."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast, dataclass_transform, overload

from potluck.cls import register
from potluck.errors import InvalidError
from potluck.functions import Function, Options
from potluck.image import Image
from potluck.parameters import parameter

if TYPE_CHECKING:
    from potluck.retries import Retries
    from potluck.running import Running

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


class App:
    """`name` shows up in status and receipts: letters, digits, `-`, `_` and `.`, at most 64. Raises `InvalidError`."""

    def __init__(self, name: str = "app", *, image: Image | None = None) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
            raise InvalidError(
                f"{name!r} is not a name for an app.", fix="Use up to 64 letters, digits, '-', '_' and '.'."
            )
        self.name = name
        self._image = image
        self._run: Running | None = None
        self.registered_functions: dict[str, Function[..., Any]] = {}
        self.registered_classes: dict[str, type] = {}
        self.registered_entrypoints: dict[str, LocalEntrypoint] = {}

    def function(
        self,
        *,
        image: Image | None = None,
        gpu: str | list[str] | None = None,
        cpu: float | None = None,
        memory: int | None = None,
        timeout: float = 300,
        retries: int | Retries | None = None,
        env: Mapping[str, str | None] | None = None,
        name: str | None = None,
        serialized: bool = False,
        sandbox: str = "",
        block_network: bool | None = None,
        outbound_domain_allowlist: Sequence[str] | None = None,
    ) -> Decorator:
        """Make a function runnable on the mesh.

        `gpu` is a model, "any", "H100:2", "any:>=16GB" or a list of these in order of preference; `cpu` is in cores,
        `memory` in MiB, `timeout` in seconds for each input; `sandbox` is the weakest that will do, such as "gvisor"
        (Potluck's own). There is no network, unless `outbound_domain_allowlist` names hosts ("example.org",
        "*.example.org"), or `block_network=False` asks for all public ones.

        Raises `InvalidError` for values that cannot work.
        """
        options = Options(
            name=name,
            image=image or self._image or Image.local_python(),
            gpu=gpu,
            cpu=cpu,
            memory=memory,
            timeout=timeout,
            retries=retries,
            env=env,
            serialized=serialized,
            sandbox=sandbox,
            block_network=block_network,
            outbound_domain_allowlist=outbound_domain_allowlist,
        )

        def decorate(raw: Callable[..., Any]) -> Function[..., Any]:
            if isinstance(raw, type):
                raise InvalidError(f"{raw.__name__} is a class.", fix="Decorate it with @app.cls().")
            if not callable(raw) or isinstance(raw, Function):
                raise InvalidError("@app.function() decorates plain functions.", fix="Write it with parentheses, once.")
            function: Function[..., Any] = Function(self, raw, options)
            self._check_new(function.name, "functions", "Give a name=.")
            self.registered_functions[function.name] = function
            return function

        return cast(Decorator, decorate)

    @dataclass_transform(field_specifiers=(parameter,), kw_only_default=True)
    def cls(
        self,
        *,
        image: Image | None = None,
        gpu: str | list[str] | None = None,
        cpu: float | None = None,
        memory: int | None = None,
        timeout: float = 300,
        retries: int | Retries | None = None,
        env: Mapping[str, str | None] | None = None,
        serialized: bool = False,
        sandbox: str = "",
        block_network: bool | None = None,
        outbound_domain_allowlist: Sequence[str] | None = None,
    ) -> Callable[[C], C]:
        """Make the methods of a class runnable on the mesh, on objects that are made once in each worker.

        The options are those of `function`, for each worker; `timeout` and `retries` hold for each input of a method.
        Raises `InvalidError` for values that cannot work, and for a class with an `__init__` of its own.
        """
        options = Options(
            name=None,
            image=image or self._image or Image.local_python(),
            gpu=gpu,
            cpu=cpu,
            memory=memory,
            timeout=timeout,
            retries=retries,
            env=env,
            serialized=serialized,
            sandbox=sandbox,
            block_network=block_network,
            outbound_domain_allowlist=outbound_domain_allowlist,
        )

        def decorate(raw: C) -> C:
            register(self, raw, options)
            self._check_new(raw.__name__, "classes", "Rename one.")
            self.registered_classes[raw.__name__] = raw
            return raw

        return decorate

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
    def run(self, *, show_progress: bool | None = None, build_on: str = "") -> Iterator[App]:
        """Connect to the local node (starting one when there is none) for as long as the block lasts.

        `build_on` is the name or id of a peer that is to build the images (Potluck's own).
        Raises `NodeStartError` when no node runs and none can be started.
        """
        if self._run:
            raise InvalidError(f"The app {self.name} is running already.")
        from potluck.running import Running

        self._run = Running(self, show_progress, build_on)
        try:
            yield self
        finally:
            run, self._run = self._run, None
            run.close()

    def deploy(self, *, name: str | None = None, show_progress: bool | None = None, build_on: str = "") -> App:
        """Record all functions and classes of the app on the local node, in place of what was deployed before under its
        name, or under `name`. They are found there by `Function.from_name` and `Cls.from_name`, until
        `potluck app stop`, also after a restart.

        Raises `InvalidError` for an app without any, and `ImageBuildError`.
        """
        from potluck.deploy import deploy

        deploy(self, name=name or "", show_progress=show_progress, build_on=build_on)
        return self

    def _require_run(self, function: str) -> Running:
        if self._run is None:
            raise InvalidError(
                f"{function} cannot run remotely: its app {self.name} is not running.",
                fix="Start the program with `potluck run`, or wrap the call in `with app.run():`.",
            )
        return self._run

    def __reduce__(self) -> tuple[Any, ...]:
        return (App, (self.name,))
