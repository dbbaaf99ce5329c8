"""Where the terminal's answers come from: this machine's node, or a recording (`demo`). No textual here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from potluck import wire
from potluck.client import Client as BlockingClient
from potluck.errors import Error
from potluck.wire import control
from potluck.wire.doctor import Finding
from potluck.wire.history import AskGpus, GpusTold

# A node answers within a few milliseconds; what a busy one says is left to the app, which waits longer.
GLANCE_S = 0.1

AnswerT = TypeVar("AnswerT", bound=wire.Message)


class Glance(NamedTuple):
    """The first page, but for the history."""

    status: control.Status
    gpus: GpusTold | None = None


class Client(Protocol):
    """One connection, as `potluck.aio.AsyncClient` is one."""

    async def ask(self, make: Callable[[int], wire.Message], kind: type[AnswerT]) -> AnswerT: ...
    async def aclose(self) -> None: ...


class Source(Protocol):
    """Raises `potluck.errors.Error` where something cannot be had."""

    def glance(self) -> Glance | None:
        """What is said at once, if anything is: for the first frame, which waits for nothing."""
        ...

    async def connect(self) -> Client: ...
    async def examine(self) -> list[Finding]:
        """What this machine has, as `potluck doctor` finds it."""
        ...


class Silent:
    """A session's listener with nothing to hear: this client opens no calls and builds no images."""

    def notice(self, message: control.CallNotice) -> None: ...
    def log(self, message: control.CallLog) -> None: ...
    def progress(self, text: str) -> None: ...


class LocalNode:
    """The node whose control socket is at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def glance(self) -> Glance | None:
        try:
            client = BlockingClient(self._path, Silent(), timeout_s=GLANCE_S)
        except Error:
            return None
        found: Glance | None = None
        try:
            found = Glance(client.ask(control.AskStatus, control.Status))
            if found.status.gpus:
                found = Glance(found.status, client.ask(AskGpus, GpusTold))
        except Error:
            # What came until then is shown.
            pass
        finally:
            client.close()
        return found

    async def connect(self) -> Client:
        # Takes 30 ms to load, with asyncio.
        from potluck.aio import AsyncClient

        return await AsyncClient.connect(self._path, Silent())

    async def examine(self) -> list[Finding]:
        from potluck_tui.looks import examine

        return await examine()
