"""Watches the machine's GPUs for the provider's core: which there are, who uses them, what leases use."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import trio

from potluck.wire.offer import FREE, USED
from potluck_node.clock import Clock
from potluck_node.core import provider_events as ev
from potluck_node.core.gpu_meter import GpuSample, by_worker
from potluck_node.core.gpus import Gpu, GpuDesk
from potluck_node.devices.interface import Device, Devices, GpuProcess, Reading
from potluck_node.devices.processes import owners

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("potluck.gpus")

# How often all GPUs are looked at: an owner's game, or a GPU that is lost while nobody uses it, is seen so soon.
LOOK_EVERY_S = 5.0
# On a machine without any: a driver may still be installed or loaded.
NONE_EVERY_S = 60.0
# How often GPUs in use are sampled. Drivers average over a sixth of a second to a second.
SAMPLE_EVERY_S = 0.5
# What the owner's programs may hold of a GPU before it counts as used, MiB: a desktop holds some for its windows, a
# program that computes has a context of more than this.
OTHERS_COMPUTE_MIB, OTHERS_GRAPHICS_MIB = 64, 1024

# Pid → (worker, start of the process).
Owners = Mapping[int, tuple[str, int]]
# The worker → the first process of its sandbox.
Sandboxes = Callable[[], Mapping[str, int]]


class GpuWatch:
    """`lent` is the owner's setting: "all", "none", or uuids and numbers."""

    def __init__(
        self, devices: Devices, lent: str | tuple[str | int, ...], desk: GpuDesk, sandboxes: Sandboxes,
        submit: Callable[[ev.Event], None], clock: Clock,
    ) -> None:  # fmt: skip
        self.devices = devices
        self._lent, self._desk, self._sandboxes, self._submit, self._clock = lent, desk, sandboxes, submit, clock
        self._lock = trio.Lock()
        self._hurry = trio.Event()
        self._any = False
        self.findings: tuple[str, ...] = ()

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled. The GPUs are known when this has started."""
        await self.look()
        task_status.started()
        looked = trio.current_time()
        while True:
            pause_s = LOOK_EVERY_S if self._any else NONE_EVERY_S
            with trio.move_on_after(SAMPLE_EVERY_S if self._desk.holders() else pause_s):
                await self._hurry.wait()
            self._hurry = trio.Event()
            await self.sample()
            if trio.current_time() >= looked + pause_s:
                await self.look()
                looked = trio.current_time()

    def hurry(self) -> None:
        """A GPU was just leased: its meter starts from a sample of now."""
        self._hurry.set()

    async def look(self) -> None:
        """Tell the core which GPUs there are."""
        async with self._lock:
            found = await self.devices.inventory()
            self._any = bool(found.devices)
            ours = await trio.to_thread.run_sync(owners, {"": os.getpid()} if self._any else {})
        if found.findings != self.findings:
            log.info("%s", " ".join(found.findings))
        self.findings = found.findings
        self._submit(ev.GpusSeen(tuple(_gpu(each, ours) for each in found.devices if self._lends(each))))

    def _lends(self, device: Device) -> bool:
        if isinstance(self._lent, str):
            return self._lent == "all"
        return bool({device.uuid, device.index} & {str(each) for each in self._lent})

    async def sample(self) -> None:
        """Meter every GPU that is held."""
        uuids = sorted({gpu.uuid for hold in self._desk.holders().values() for gpu in hold.gpus})
        if not uuids:
            return
        async with self._lock:
            readings = await self.devices.sample(uuids)
            now_us = self._clock.now_us()
            ours = await trio.to_thread.run_sync(owners, dict(self._sandboxes()))
        for reading in readings:
            if not reading.fault:
                self._submit(ev.GpuSampled(_sample(reading, ours, now_us)))
                self._check_shares(reading, ours)
        if any(reading.fault for reading in readings):
            await self.look()

    def _check_shares(self, reading: Reading, ours: Owners) -> None:
        """The driver does not keep those who share a GPU to their part of its memory: we look, twice a second."""
        for worker, hold in self._desk.holders().items():
            mine = [each.memory_mib or 0 for each in reading.present if ours.get(each.pid, ("", 0))[0] == worker]
            if hold.share_mib and hold.has(reading.uuid) and sum(mine) > hold.share_mib:
                self._submit(ev.LimitBroken(worker, "it took more of its GPU than its share", gpu_mib=sum(mine)))


def _gpu(device: Device, ours: Owners) -> Gpu:
    state = device.fault or (USED if _used(device, ours) else FREE)
    return Gpu(
        device.uuid, device.model, device.memory_mib, device.memory_free_mib, state, device.driver,
        device.capability, device.near,
    )  # fmt: skip


def _used(device: Device, ours: Owners) -> bool:
    """Whether programs that are not ours use it. One whose memory is not told counts as using it."""
    others = [each for each in device.processes if each.pid not in ours]
    graphics = sum(each.memory_mib or 0 for each in others if each.graphics)
    computes = any(
        each.memory_mib is None or each.memory_mib > OTHERS_COMPUTE_MIB for each in others if not each.graphics
    )
    return computes or graphics > OTHERS_GRAPHICS_MIB


def _sample(reading: Reading, ours: Owners, now_us: int) -> GpuSample:
    return GpuSample(
        reading.uuid,
        now_us,
        reading.energy_mj,
        reading.power_mw,
        reading.device_milli,
        None if reading.processes is None else by_worker(reading.processes, ours),
        any(_is_other(each, ours) for each in reading.present),
    )


def _is_other(process: GpuProcess, ours: Owners) -> bool:
    """A process of the machine that is not ours. A number that we do not see may be ours: drivers give the host's
    numbers, and this node may run in a container."""
    return process.pid not in ours and not process.graphics and os.path.exists(f"/proc/{process.pid}")
