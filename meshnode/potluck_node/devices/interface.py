"""The device seam: what GPUs there are, what they do, and what a sandbox needs to use some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from potluck_node.core.gpu_meter import ProcessUse


@dataclass(frozen=True)
class Binding:
    """What a sandbox gets to use its GPUs, and nothing else of them: device files, which appear under the same name
    below /dev, read-only files (host path, path inside), and variables. `gpus` are their uuids, for a build's step."""

    devices: tuple[Path, ...] = ()
    binds: tuple[tuple[Path, str], ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    gpus: frozenset[str] = frozenset()


@dataclass(frozen=True)
class GpuProcess:
    """A process that uses a GPU. `memory_mib` is None where the driver does not say."""

    pid: int
    memory_mib: int | None
    graphics: bool = False


@dataclass(frozen=True)
class Device:
    """One GPU or MIG instance. `fault` says why it cannot be used; `nodes` are its own device files.

    `clock_mhz`, `power_mw`, `temperature_c`, `throttled` and `load_milli` (the part of the time in which some kernel
    ran) are None or empty where the driver does not say.
    """

    uuid: str
    index: str
    maker: str
    model: str
    memory_mib: int = 0
    memory_free_mib: int = 0
    driver: str = ""
    capability: int = 0
    fault: str = ""
    nodes: tuple[Path, ...] = ()
    processes: tuple[GpuProcess, ...] = ()
    near: tuple[tuple[str, int], ...] = ()
    clock_mhz: int | None = None
    power_mw: int | None = None
    temperature_c: int | None = None
    throttled: tuple[str, ...] = ()
    slice: bool = False
    load_milli: int | None = None


@dataclass(frozen=True)
class Inventory:
    """`findings` are for the owner, in words: what is missing, and what would help."""

    devices: tuple[Device, ...] = ()
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """One look at a GPU in use. `processes` has what each did since the reading before, None where the driver does not
    tell; `present` are the processes on it. Energy counts from an unknown start."""

    uuid: str
    energy_mj: int | None = None
    power_mw: int | None = None
    device_milli: int | None = None
    processes: tuple[ProcessUse, ...] | None = None
    present: tuple[GpuProcess, ...] = ()
    fault: str = ""


class Devices(Protocol):
    """A machine's GPUs. Methods may be called from one task at a time, and never raise for a GPU that misbehaves."""

    async def inventory(self) -> Inventory:
        """All GPUs as they are now."""
        ...

    async def sample(self, uuids: Sequence[str]) -> tuple[Reading, ...]:
        """Readings of these GPUs; one that cannot be read any more has a `fault`."""
        ...

    def binding(self, uuids: Sequence[str]) -> Binding:
        """What a sandbox gets. Raises `potluck.errors.SandboxError` for a GPU that the last inventory did not have."""
        ...
