"""All sandboxes of this machine as one launcher: each function gets the weakest that owner and caller both accept."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from potluck.errors import SandboxError
from potluck.tiers import TIERS, at_least
from potluck_node.sandbox.bwrap import BwrapLauncher
from potluck_node.sandbox.gvisor import GvisorLauncher
from potluck_node.sandbox.interface import Launcher, SandboxSpec, Zygote
from potluck_node.sandbox.process import ProcessLauncher
from potluck_node.sandbox.spares import Spares

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("potluck.sandbox")

PROCESS_WARNING = (
    "This node isolates nothing (sandbox = process), so it runs its owner's own functions only and offers nothing."
)

UNLIMITED_WARNING = (
    "This machine cannot limit {lacking} of a sandbox, so the node runs its owner's own functions only and offers "
    "nothing. `potluck doctor` says what would help; the setting without_limits lets others in all the same."
)

_LAUNCHERS: dict[str, Callable[[], Launcher]] = {
    "process": ProcessLauncher, "bwrap": BwrapLauncher, "gvisor": lambda: Spares(GvisorLauncher()),
}  # fmt: skip


class Tiers:
    """A `Launcher` (see `interface`) of several; `tiers` are those that run here, the weakest first."""

    def __init__(self, launchers: dict[str, Launcher]) -> None:
        self._launchers = {tier: launchers[tier] for tier in TIERS if tier in launchers}

    @property
    def tier(self) -> str:
        """What a function gets that asks for none."""
        return self.tiers[0]

    @property
    def tiers(self) -> tuple[str, ...]:
        return tuple(self._launchers)

    @property
    def lacking(self) -> tuple[str, ...]:
        return next(iter(self._launchers.values())).lacking

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep spare sandboxes, for as long as sandboxes are started."""
        async with trio.open_nursery() as nursery:
            for launcher in self._launchers.values():
                if isinstance(launcher, Spares):
                    await nursery.start(launcher.serve)
            task_status.started()

    async def start(self, nursery: trio.Nursery, spec: SandboxSpec) -> Zygote:
        wanted = spec.tier or spec.function.tier
        tier = at_least(self.tiers, wanted)
        if tier is None:
            raise SandboxError(f"This machine has no {wanted} sandbox.", fix="Ask another node for it.")
        return await self._launchers[tier].start(nursery, spec)


def find(minimum: str) -> Tiers:
    """All tiers of this machine from the owner's `minimum` on. Raises `SandboxError` when there is none.

    "process" protects nobody, so it is used alone, and only where it is asked for.
    """
    names = ["process"] if minimum == "process" else [tier for tier in TIERS[1:] if at_least((tier,), minimum)]
    found: dict[str, Launcher] = {}
    failed: list[SandboxError] = []
    for name in names:
        try:
            found[name] = _LAUNCHERS[name]()
        except SandboxError as error:
            failed.append(error)
            log.info("no %s sandboxes: %s", name, error)
    if not found:
        raise failed[0]
    return Tiers(found)
