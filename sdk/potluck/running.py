"""One run of an app: its connection to the local node, and the images and functions prepared so far."""

from __future__ import annotations

import asyncio
import secrets
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from potluck import handles, session, start, wire
from potluck.aio import AsyncClient
from potluck.client import Client
from potluck.errors import ConnectionError, Error, NotFoundError, PythonVersionError
from potluck.mounts import mounted
from potluck.options import Most, limited
from potluck.output import Output, make_output
from potluck.source import refer
from potluck.spec import make_spec, scaled
from potluck.wire import FunctionSpec, control
from potluck.wire.apps import NamedFunction, NameFunctions, StartApp, WantFunction
from potluck.wire.common import Failure, Limit, Scaling
from potluck.wire.state import AskState, StateAnswered

if TYPE_CHECKING:
    from potluck.app import App
    from potluck.functions import Function


class Link:
    """A connection to the local node, and those of event loops. Subclasses find out specs, once each."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.client: Client = start.connect(output)
        # What secrets are hashed with; another run gets workers of its own.
        self.key = secrets.token_bytes(32)
        self._specs: dict[object, FunctionSpec] = {}
        self._scalings: dict[object, Scaling] = {}
        self._preparing = threading.Lock()
        self._async_clients: dict[asyncio.AbstractEventLoop, AsyncClient] = {}

    def spec(self, function: Function[Any, Any]) -> FunctionSpec:
        """Prepare a function: have its image built, once. Raises `ImageBuildError`, `PythonVersionError`."""
        with self._preparing:
            if function._key not in self._specs:
                self._specs[function._key] = self._prepare(function)
            return self._specs[function._key]

    async def spec_async(self, function: Function[Any, Any]) -> FunctionSpec:
        """As `spec`, without blocking the event loop."""
        if found := self._specs.get(function._key):
            return found
        return await asyncio.to_thread(self.spec, function)

    def limit(self, function: Function[Any, Any], most: Most = (None, None)) -> Limit | None:
        """What one call may use, in place of what the function says. Raises `InvalidError`."""
        return limited(most)

    def scale(self, function: Function[Any, Any], given: dict[str, int]) -> None:
        """Change some of the numbers of workers, for all calls of the function from this machine."""
        spec = self.spec(function)
        with self._preparing:
            scaling = self._scalings[function._key] = scaled(self._scalings.get(function._key, spec.scaling), given)
        self.client.ask(lambda number: control.SetScaling(number, spec, scaling), control.Done)

    def _prepare(self, function: Function[Any, Any]) -> FunctionSpec:
        raise NotImplementedError

    async def async_client(self) -> AsyncClient:
        """The connection of the running event loop."""
        loop = asyncio.get_running_loop()
        client = self._async_clients.get(loop)
        if client is None:
            client = self._async_clients[loop] = await AsyncClient.connect(start.path(), self.output)
        return client

    def close(self) -> None:
        """End all connections; the node cancels whatever still runs for them."""
        for loop, client in self._async_clients.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(client.abort)
        self.client.close()
        self.output.close()


class Running(Link):
    """Made by `App.run()`."""

    def __init__(self, app: App, show_progress: bool | None, build_on: str = "") -> None:
        super().__init__(make_output(show_progress))
        self._app, self._build_on = app, build_on
        self._granted: set[wire.Message] = set()
        # Plans of images with what they became; and names that the node was told.
        self._built: list[tuple[object, control.ImageBuilt]] = []
        self._told: set[str] = set()
        # Of functions that answer requests while it runs, by name.
        self.urls: dict[str, str] = {}
        self.client.ask(lambda number: StartApp(number, app.name), control.Done)
        _running[app.name] = self
        session.wanted = _wanted

    def close(self) -> None:
        if _running.get(self._app.name) is self:
            del _running[self._app.name]
        super().close()

    def keep_warm(self) -> None:
        """Have workers started for functions that say how many there are to be at least. Raises as `spec`."""
        if any(function._web for function in self._app.registered_functions.values()):
            from potluck.deploy import record_web

            self.urls = record_web(self, self._app)
        for function in self._app.registered_functions.values():
            if function._options.scaling.get("min_containers"):
                self._keep(self.spec(function))

    def _keep(self, spec: FunctionSpec) -> None:
        self.client.ask(lambda number: control.KeepFunction(number, spec), control.Done)

    def _prepare(self, function: Function[Any, Any]) -> FunctionSpec:
        options = function._options
        reference = refer(function._origin, serialized=options.serialized, include_source=options.include_source)
        plan = options.image._plan(reference.files, tuple(place for place, _ in options.volumes))
        self.grant(self._app.name)
        built = self._found_built(plan)
        if built is None:
            build = lambda number: control.BuildImage(number, *plan, self._build_on)  # noqa: E731
            built = self.client.ask(build, control.ImageBuilt)
            self._built.append((plan, built))
        check_python(function._pool, built.python)
        self.output.progress("")
        return make_spec(function, reference, built.image, built.python, self.key)

    def _found_built(self, plan: object) -> control.ImageBuilt | None:
        return next((built for known, built in self._built if known == plan), None)

    def spec(self, function: Function[Any, Any]) -> FunctionSpec:
        known = len(self._specs)
        spec = super().spec(function)
        if len(self._specs) > known:
            self._name()
        return spec

    def _name(self) -> None:
        """Tell the node of all functions of the app that could run now, so that they can call each other."""
        from potluck.deploy import named

        functions = tuple(named(self, self._app, self._told, self._has_image))
        self._told.update(each.name for each in functions)
        if functions:
            self.client.ask(lambda number: NameFunctions(number, self._app.name, functions), control.Done)

    def name_wanted(self, name: str) -> None:
        """One of the app's functions calls another one: have that one's image built, too."""
        from potluck.deploy import named

        others = {*self._app.registered_functions, *self._app.registered_classes} - {name}
        failed: tuple[tuple[str, Failure], ...] = ()
        functions: tuple[NamedFunction, ...] = ()
        try:
            functions = tuple(named(self, self._app, others, lambda function: True))
            if not functions:
                raise NotFoundError(f"The app {self._app.name} has no function or class named {name[:64]}.")
        except Error as error:
            failed = ((name, Failure.of(error)),)
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits to hear of it
            failed = ((name, Failure.of(Error(f"{name[:64]} cannot be called.", why=repr(error)))),)
        self._told.update(each.name for each in functions)
        with suppress(ConnectionError):
            self.client.ask(lambda number: NameFunctions(number, self._app.name, functions, failed), control.Done)

    def _has_image(self, function: Function[Any, Any]) -> bool:
        """Whether nothing is to be built for it. Raises `NotFoundError` when one of its volumes is not there."""
        options = function._options
        reference = refer(function._origin, serialized=options.serialized, include_source=options.include_source)
        places = tuple(mount.path for mount in mounted(options.volumes))
        return self._found_built(options.image._plan(reference.files, places)) is not None

    def grant(self, app: str) -> None:
        """Let an app's workers use the dicts and queues that this program names, wherever they run."""
        for request in handles.named_for(app) - self._granted:
            payload = wire.encode(request)
            self.client.ask(lambda number, payload=payload: AskState(number, payload), StateAnswered)  # type: ignore[misc]
            self._granted.add(request)


# The apps that this program runs, by name.
_running: dict[str, Running] = {}


def _wanted(message: WantFunction) -> None:
    """Whoever reads this must go on reading: it is seen to in a thread."""
    if running := _running.get(message.app):
        threading.Thread(target=running.name_wanted, args=(message.name,), daemon=True).start()


def check_python(name: str, theirs: str) -> None:
    """Raises `PythonVersionError`."""
    ours = "{}.{}".format(*sys.version_info[:2])
    if theirs != ours:
        raise PythonVersionError(
            f"The image of {name} has Python {theirs}, this program runs {ours}.",
            why="pickled functions and arguments only fit the same version",
            fix=f"Run this program with Python {theirs}, or use an image with {ours}.",
        )
