"""The `Devices` of this machine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import trio

from potluck.errors import SandboxError
from potluck_node.devices import cdi
from potluck_node.devices.amd import Amd
from potluck_node.devices.cpu import describe_cpu
from potluck_node.devices.interface import Binding, Device, Inventory, Reading
from potluck_node.devices.nvml import Nvml

log = logging.getLogger("potluck.devices")

T = TypeVar("T")

# A driver whose GPU has died can block for ever in the kernel. Looking at eight GPUs takes well below a second.
ANSWER_TIMEOUT_S = 10.0


class LocalDevices:
    """`root` replaces / for tests: its dev/, proc/, sys/ and lib/ are used."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._nvml, self._amd = Nvml(root), Amd(root)
        self._devices: dict[str, Device] = {}
        # The driver's libraries, and the version of the driver for which they were looked up.
        self._libraries: dict[str, Path] = {}
        self._version = ""
        # One at a time: a call that hangs holds it, and those after it are told that the driver does not answer.
        self._thread = trio.CapacityLimiter(1)

    async def inventory(self) -> Inventory:
        found = await self._answer(self._look)
        if found is None:
            stuck = tuple(_stuck(device) for device in self._devices.values())
            return Inventory(stuck, (f"A GPU driver has not answered for {ANSWER_TIMEOUT_S:.0f} s.",))
        self._devices = {device.uuid: device for device in found.devices}
        return found

    async def sample(self, uuids: Sequence[str]) -> tuple[Reading, ...]:
        found = await self._answer(lambda: (*self._nvml.sample(uuids), *self._amd.sample(uuids)))
        return () if found is None else found

    def binding(self, uuids: Sequence[str]) -> Binding:
        missing = [uuid for uuid in uuids if uuid not in self._devices]
        if missing:
            raise SandboxError("A GPU is gone.", why=f"{', '.join(missing)} is not among this machine's GPUs any more")
        return cdi.binding([self._devices[uuid] for uuid in uuids], self._libraries, self._root)

    def _look(self) -> Inventory:
        if (self._root / "dev/dxg").exists():
            return Inventory((), ("GPUs under WSL are not supported: they cannot be bound one by one.",))
        found = [self._nvml.inventory(), self._amd.inventory()]
        devices = tuple(device for each in found for device in each.devices)
        version = next((device.driver for device in devices if device.driver), "")
        if version != self._version:
            self._libraries, self._version = cdi.driver_libraries(self._root), version
        return Inventory(devices, (describe_cpu(self._root), *(text for each in found for text in each.findings)))

    async def _answer(self, ask: Callable[[], T]) -> T | None:
        """The answer, or None when the driver takes too long. Its thread is left behind then."""
        with trio.move_on_after(ANSWER_TIMEOUT_S):
            return await trio.to_thread.run_sync(ask, abandon_on_cancel=True, limiter=self._thread)  # type: ignore[call-arg]  # the stubs are older than the name
        log.warning("a GPU driver does not answer")
        return None


def _stuck(device: Device) -> Device:
    return replace(device, fault="does not answer; restart the machine", processes=())
