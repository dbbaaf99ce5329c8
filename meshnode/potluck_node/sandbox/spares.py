"""Sandboxes started before they are asked for, where a start is slow: gVisor's takes ten times as long as bubblewrap's.

After each start one more sandbox of the same kind is opened: the same caller, image, limits and variables. Its
interpreter waits for the function, so that the next start costs an import and a fork. Nothing of a function runs in a
spare, and no caller ever gets another's. At most one waits, and not for long.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import trio

from potluck.errors import Error
from potluck.wire.common import FunctionSpec
from potluck_node.sandbox.interface import Launcher, SandboxSpec, Zygote

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("potluck.sandbox")

# How long a spare waits, seconds: a program that starts its functions one after another needs the next one soon. Each
# holds some 60 MiB that nobody was promised.
SPARE_S = 60.0


class Opened(Zygote, Protocol):
    """A sandbox whose interpreter waits for its function."""

    @property
    def opened(self) -> bool:
        """Whether it still does."""
        ...

    async def start(self, function: FunctionSpec) -> None:
        """Have the function imported; when this raises or is cancelled the sandbox is closed."""
        ...


class Opener(Launcher, Protocol):
    async def open(self, nursery: trio.Nursery, spec: SandboxSpec) -> Opened: ...


@dataclass
class _Spare:
    key: SandboxSpec
    root: tuple[int, int]
    zygote: Opened
    expires: float


class Spares:
    """A `Launcher` (see `interface`) around one whose starts are slow. `serve` must run."""

    def __init__(self, launcher: Opener) -> None:
        self._launcher = launcher
        self._nursery: trio.Nursery | None = None
        self._spare: _Spare | None = None
        self._wanted, self._want = trio.open_memory_channel[SandboxSpec](1)

    @property
    def tier(self) -> str:
        return self._launcher.tier

    @property
    def tiers(self) -> tuple[str, ...]:
        return self._launcher.tiers

    @property
    def lacking(self) -> tuple[str, ...]:
        return self._launcher.lacking

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a spare ready; what still waits at the end is closed."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            try:
                await self._keep()
            finally:
                await self._drop()

    async def _keep(self) -> None:
        assert self._nursery
        while True:
            left = self._spare.expires - trio.current_time() if self._spare else float("inf")
            wanted: SandboxSpec | None = None
            with trio.move_on_after(left):
                wanted = await self._want.receive()
            await self._drop()
            if wanted is not None:
                await self._open(self._nursery, wanted)

    async def _open(self, nursery: trio.Nursery, spec: SandboxSpec) -> None:
        try:
            zygote = await self._launcher.open(nursery, spec)
            self._spare = _Spare(_key(spec), _identity(spec), zygote, trio.current_time() + SPARE_S)
        except (Error, OSError) as error:
            log.info("no spare sandbox: %s", error)

    async def _drop(self) -> None:
        spare, self._spare = self._spare, None
        if spare:
            await spare.zygote.aclose()

    async def start(self, nursery: trio.Nursery, spec: SandboxSpec) -> Zygote:
        zygote = self._take(spec)
        if zygote is None:
            zygote = await self._launcher.open(nursery, spec)
        await zygote.start(spec.function)
        if self._nursery and spec.owner and not spec.devices and spec.network is None and not _writes(spec):
            try:
                self._wanted.send_nowait(spec)
            except trio.WouldBlock:
                log.debug("a spare is being made already")
        return zygote

    def _take(self, spec: SandboxSpec) -> Opened | None:
        """The spare, if it is exactly what would be started, and its image is still the one that it was opened on."""
        spare = self._spare
        if spare is None or not spare.zygote.opened or spare.key != _key(spec) or spare.root != _identity(spec):
            return None
        self._spare = None
        return spare.zygote


def _writes(spec: SandboxSpec) -> bool:
    """Whether what it writes is its own."""
    return bool(spec.volumes) or spec.overlay is not None


def _key(spec: SandboxSpec) -> SandboxSpec:
    """All that counts when a sandbox is opened: of the function only its variables."""
    function = spec.function
    kept = FunctionSpec("", "", "", "", env=function.env, tier=function.tier, secrets=function.secrets)
    return replace(spec, function=kept)


def _identity(spec: SandboxSpec) -> tuple[int, int]:
    found = os.stat(spec.root)
    return found.st_dev, found.st_ino
