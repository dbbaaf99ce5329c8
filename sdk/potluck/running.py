"""One run of an app: its connection to the local node, and the images and functions prepared so far."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, Any

from potluck import start
from potluck.aio import AsyncClient
from potluck.client import Client
from potluck.errors import PythonVersionError
from potluck.output import make_output
from potluck.source import refer
from potluck.spec import make_spec
from potluck.wire import FunctionSpec, control
from potluck.wire.apps import StartApp

if TYPE_CHECKING:
    from potluck.app import App
    from potluck.functions import Function


class Running:
    """Made by `App.run()`."""

    def __init__(self, app: App, show_progress: bool | None, build_on: str = "") -> None:
        self._app, self._build_on = app, build_on
        self.output = make_output(show_progress)
        self.client: Client = start.connect(self.output)
        self.client.ask(lambda number: StartApp(number, app.name), control.Done)
        self._specs: dict[tuple[str, bytes], FunctionSpec] = {}
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
        if function._key in self._specs:
            return self._specs[function._key]
        return await asyncio.to_thread(self.spec, function)

    def _prepare(self, function: Function[Any, Any]) -> FunctionSpec:
        options = function._options
        reference = refer(function._origin, serialized=options.serialized)
        plan = options.image._plan(reference.files)
        built = self.client.ask(lambda number: control.BuildImage(number, *plan, self._build_on), control.ImageBuilt)
        ours = "{}.{}".format(*sys.version_info[:2])
        if built.python != ours:
            raise PythonVersionError(
                f"The image of {function._pool} has Python {built.python}, this program runs {ours}.",
                why="pickled functions and arguments only fit the same version",
                fix=f"Run this program with Python {built.python}, or use an image with {ours}.",
            )
        self.output.progress("")
        return make_spec(function, reference, built.image, built.python)

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
