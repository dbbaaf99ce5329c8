"""NVIDIA GPUs, by NVIDIA's own library (nvidia-ml-py); nothing else imports it. Blocking: runs in a worker thread.

Reference: https://docs.nvidia.com/deploy/nvml-api/. A GPU that answers with an error stays in the list with the reason.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from potluck_node.core.gpu_meter import ProcessUse
from potluck_node.devices.interface import Device, GpuProcess, Inventory, Reading

T = TypeVar("T")

# The first driver that lists processes in the form that is read here; from January 2022.
DRIVER_MIN = 510

# MIG instances of one GPU (NVIDIA allows 7), and GPUs of one machine: whatever the library says beyond is nonsense.
DEVICES_MAX = 64

_THROTTLE = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "thermal",
    0x40: "hardware thermal",
    0x80: "power brake",
}


@dataclass
class _Known:
    """A GPU's handle, and what it was when it last answered."""

    device: Device
    handle: Any
    seen_us: int


class Nvml:
    """`root` is where /dev and /proc are."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._nvml: Any = None
        self._known: dict[str, _Known] = {}

    def inventory(self) -> Inventory:
        """Every GPU and every MIG instance; a GPU that is cut into instances is not listed itself."""
        trouble = self._load()
        if trouble:
            return Inventory((), (trouble,))
        nvml = self._nvml
        try:
            driver, count = nvml.nvmlSystemGetDriverVersion(), min(DEVICES_MAX, nvml.nvmlDeviceGetCount())
        except nvml.NVMLError as error:
            return Inventory(self._all_faulty(_words(error)), (f"NVIDIA's driver does not answer: {error}.",))
        devices: dict[str, Device] = {}
        for index in range(count):
            devices |= {device.uuid: device for device in self._look(index, driver)}
        missing = [known.device for uuid, known in self._known.items() if uuid not in devices]
        devices |= {device.uuid: replace(device, fault="has disappeared") for device in missing}
        return Inventory(tuple(self._with_neighbours(devices)), tuple(_findings(driver, devices.values())))

    def sample(self, uuids: Sequence[str]) -> tuple[Reading, ...]:
        """Readings of GPUs that an inventory has listed."""
        return tuple(self._read(uuid) for uuid in uuids if uuid in self._known)

    # The library

    def _load(self) -> str:
        """Load and start the library once; returns why there is none."""
        if self._nvml:
            return ""
        try:
            import pynvml
        except ImportError:
            return "NVIDIA GPUs are not looked for: install nvidia-ml-py (pip install 'potluck[node]')."
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            return _no_library(pynvml, error)
        self._nvml = pynvml
        return ""

    def _ask(self, function: str, *arguments: Any, default: T) -> T | Any:
        """A value that a GPU may lack. What means that the GPU itself is gone is raised."""
        nvml = self._nvml
        try:
            return getattr(nvml, function)(*arguments)
        except nvml.NVMLError as error:
            if error.value in (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED):
                raise
            return default

    # Inventory

    def _look(self, index: int, driver: str) -> list[Device]:
        nvml = self._nvml
        handle = None
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            whole = self._describe(handle, str(index), driver)
            self._keep(whole, handle)
            slices = list(self._slices(handle, whole))
            if slices or self._ask("nvmlDeviceGetMigMode", handle, default=[0])[0]:
                self._known.pop(whole.uuid, None)
                return slices
            return [whole]
        except nvml.NVMLError as error:
            return self._faulty(str(index), _words(error))

    def _keep(self, device: Device, handle: Any) -> None:
        before = self._known.get(device.uuid)
        self._known[device.uuid] = _Known(device, handle, before.seen_us if before else time.time_ns() // 1000)

    def _faulty(self, index: str, why: str) -> list[Device]:
        """What this index was when it last answered; of one that never has, nothing more is known."""
        of_this = [each.device for each in self._known.values() if each.device.index.split(":")[0] == index]
        unknown = Device(f"unknown-{index}", index, "nvidia", "unknown NVIDIA GPU")
        return [replace(device, fault=why, processes=()) for device in of_this or [unknown]]

    def _all_faulty(self, why: str) -> tuple[Device, ...]:
        return tuple(replace(each.device, fault=why, processes=()) for each in self._known.values())

    def _describe(self, handle: Any, index: str, driver: str, whole: Any = None) -> Device:
        """`whole` is the GPU of a MIG instance, which answers for what an instance does not know."""
        nvml, board = self._nvml, whole or handle
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        major, minor = self._ask("nvmlDeviceGetCudaComputeCapability", board, default=(0, 0))
        return Device(
            uuid=nvml.nvmlDeviceGetUUID(handle),
            index=index,
            maker="nvidia",
            model=nvml.nvmlDeviceGetName(handle),
            memory_mib=memory.total >> 20,
            memory_free_mib=memory.free >> 20,
            driver=driver,
            capability=major * 10 + minor,
            fault=self._fault(board, driver),
            nodes=(self._root / f"dev/nvidia{nvml.nvmlDeviceGetMinorNumber(board)}",),
            processes=self._processes(handle),
            clock_mhz=self._ask("nvmlDeviceGetClockInfo", board, nvml.NVML_CLOCK_SM, default=None),
            power_mw=self._ask("nvmlDeviceGetPowerUsage", board, default=None),
            temperature_c=self._ask("nvmlDeviceGetTemperature", board, nvml.NVML_TEMPERATURE_GPU, default=None),
            throttled=self._throttled(board),
            slice=whole is not None,
            load_milli=self._load_milli(handle),
        )

    def _load_milli(self, handle: Any) -> int | None:
        usage = self._ask("nvmlDeviceGetUtilizationRates", handle, default=None)
        return None if usage is None else int(usage.gpu) * 10

    def _fault(self, handle: Any, driver: str) -> str:
        nvml = self._nvml
        if _major(driver) < DRIVER_MIN:
            return f"has driver {driver}, which is older than {DRIVER_MIN}"
        kinds = (nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC)
        errors = self._ask("nvmlDeviceGetTotalEccErrors", handle, *kinds, default=0)
        return f"has had {errors} uncorrectable memory errors since it was started; reset it: nvidia-smi -r" * (
            errors > 0
        )

    def _throttled(self, handle: Any) -> tuple[str, ...]:
        bits = self._ask("nvmlDeviceGetCurrentClocksEventReasons", handle, default=0) or self._ask(
            "nvmlDeviceGetCurrentClocksThrottleReasons", handle, default=0
        )
        return tuple(word for bit, word in _THROTTLE.items() if bits & bit)

    def _processes(self, handle: Any) -> tuple[GpuProcess, ...]:
        found = []
        for kind in ("Compute", "Graphics"):
            for each in self._ask(f"nvmlDeviceGet{kind}RunningProcesses", handle, default=[]):
                memory = None if each.usedGpuMemory is None else each.usedGpuMemory >> 20
                found.append(GpuProcess(each.pid, memory, kind == "Graphics"))
        return tuple(found)

    def _slices(self, handle: Any, whole: Device) -> Iterator[Device]:
        for number in range(min(DEVICES_MAX, self._ask("nvmlDeviceGetMaxMigDeviceCount", handle, default=0))):
            part = self._ask("nvmlDeviceGetMigDeviceHandleByIndex", handle, number, default=None)
            if part is None:
                continue
            device = self._describe(part, f"{whole.index}:{number}", whole.driver, handle)
            device = replace(device, nodes=(*device.nodes, *self._caps(part, whole)))
            self._keep(device, part)
            yield device

    def _caps(self, part: Any, whole: Device) -> Iterator[Path]:
        """The device files that allow the use of one instance, by /proc/driver/nvidia-caps/mig-minors (NVIDIA's MIG
        guide, "Device nodes and capabilities")."""
        instance = self._ask("nvmlDeviceGetGpuInstanceId", part, default=None)
        compute = self._ask("nvmlDeviceGetComputeInstanceId", part, default=None)
        number = whole.nodes[0].name.removeprefix("nvidia")
        wanted = {f"gpu{number}/gi{instance}/access", f"gpu{number}/gi{instance}/ci{compute}/access"}
        table = self._root / "proc/driver/nvidia-caps/mig-minors"
        for line in table.read_text().splitlines() if table.exists() else ():
            name, _, minor = line.partition(" ")
            if name in wanted:
                yield self._root / f"dev/nvidia-caps/nvidia-cap{minor.strip()}"

    def _with_neighbours(self, devices: dict[str, Device]) -> Iterator[Device]:
        whole = [device for device in devices.values() if not device.fault and not device.slice]
        for device in devices.values():
            others = [other for other in whole if device in whole and other.uuid != device.uuid]
            yield replace(device, near=tuple(self._near(device, others)))

    def _near(self, device: Device, others: list[Device]) -> Iterator[tuple[str, int]]:
        ask = "nvmlDeviceGetTopologyCommonAncestor"
        for other in others:
            try:
                level = self._ask(ask, self._known[device.uuid].handle, self._known[other.uuid].handle, default=None)
            except self._nvml.NVMLError:
                level = None  # lost just now: the next inventory says so
            if level is not None:
                yield other.uuid, level

    # Readings

    def _read(self, uuid: str) -> Reading:
        known, nvml = self._known[uuid], self._nvml
        handle = known.handle
        try:
            nvml.nvmlDeviceGetUUID(handle)  # answers with the error when the GPU is gone
            return Reading(
                uuid,
                energy_mj=self._ask("nvmlDeviceGetTotalEnergyConsumption", handle, default=None),
                power_mw=self._ask("nvmlDeviceGetPowerUsage", handle, default=None),
                device_milli=self._load_milli(handle),
                processes=None if known.device.slice else self._uses(known),
                present=self._processes(handle),
            )
        except nvml.NVMLError as error:
            return Reading(uuid, fault=_words(error))

    def _uses(self, known: _Known) -> tuple[ProcessUse, ...] | None:
        nvml = self._nvml
        now_us = time.time_ns() // 1000
        try:
            samples = nvml.nvmlDeviceGetProcessUtilization(known.handle, known.seen_us)
        except nvml.NVMLError as error:
            if error.value == nvml.NVML_ERROR_GPU_IS_LOST:
                raise
            samples = () if error.value == nvml.NVML_ERROR_NOT_FOUND else None
        if samples is None:
            return None
        known.seen_us = max([now_us, *(each.timeStamp for each in samples)]) if samples else now_us
        return tuple(ProcessUse(each.pid, each.smUtil * 10, each.timeStamp) for each in samples)


def _major(driver: str) -> int:
    first = driver.split(".")[0]
    return int(first) if first.isdecimal() else 0


def _words(error: Exception) -> str:
    """NVML's error as what is the matter with a GPU."""
    value = getattr(error, "value", None)
    if value == 15:  # NVML_ERROR_GPU_IS_LOST
        return "has fallen off the bus; restart the machine"
    return f"does not answer: {error}"


def _no_library(nvml: Any, error: Any) -> str:
    reasons: dict[int, str] = {
        nvml.NVML_ERROR_LIBRARY_NOT_FOUND: "No NVIDIA driver is installed (libnvidia-ml.so.1 was not found).",
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: "NVIDIA's driver is installed but not loaded: modprobe nvidia",
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "NVIDIA's driver was updated while it ran: restart the machine.",
        nvml.NVML_ERROR_FUNCTION_NOT_FOUND: f"NVIDIA's driver is older than {DRIVER_MIN}: install a newer one.",
        nvml.NVML_ERROR_NO_PERMISSION: "This user may not use NVIDIA's devices: join the group that owns /dev/nvidia*.",
    }
    return reasons.get(error.value, f"NVIDIA's driver cannot be used: {error}.")


def _findings(driver: str, devices: Iterable[Device]) -> Iterator[str]:
    if _major(driver) < DRIVER_MIN:
        yield f"NVIDIA's driver {driver} is older than {DRIVER_MIN}: install a newer one."
    for device in devices:
        if device.fault and _major(driver) >= DRIVER_MIN:
            yield f"GPU {device.index}, {device.model}, {device.fault}."
