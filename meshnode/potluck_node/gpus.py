"""Watches the machine's GPUs for the provider's core: which there are, who uses them, what leases use."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from potluck.errors import ResourceExceededError
from potluck.wire import Failure
from potluck.wire.offer import FREE, USED
from potluck_node.clock import Clock
from potluck_node.core import provider_events as ev
from potluck_node.core.gpu_meter import GpuSample, by_worker
from potluck_node.core.gpus import Gpu, GpuDesk
from potluck_node.core.policy_rules import GpuFacts
from potluck_node.devices.interface import Device, Devices, GpuProcess, Reading
from potluck_node.devices.processes import owners
from potluck_node.gpu_claims import Believed, Claim, GpuClaims

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
# How programs of this node are named among the owners; those of another have its pid.
OURS = ""
# The worker → the first process of its sandbox.
Sandboxes = Callable[[], Mapping[str, int]]


@dataclass(frozen=True)
class _Seen:
    """One look: whose processes are a node's, this one's or another's, and which GPUs others have."""

    nodes: Owners
    claims: Mapping[str, list[Claim]]
    held: frozenset[str]
    recently: frozenset[str]


class GpuWatch:
    """`lent` is the owner's setting: "all", "none", or uuids and numbers."""

    def __init__(
        self, devices: Devices, lent: str | tuple[str | int, ...], desk: GpuDesk, sandboxes: Sandboxes,
        submit: Callable[[ev.Event], None], clock: Clock, claims: GpuClaims | None = None,
    ) -> None:  # fmt: skip
        self.devices = devices
        self._lent, self._desk, self._sandboxes, self._submit, self._clock = lent, desk, sandboxes, submit, clock
        self._pid, self._lock = os.getpid(), trio.Lock()
        self._hurry = trio.Event()
        self._any = False
        self._held: frozenset[str] = frozenset()
        self.findings: tuple[str, ...] = ()
        # What other nodes of this machine use; without these, they count as programs of the owner.
        self.claims = claims or GpuClaims(None)
        self._believed = Believed(os.getuid())
        # How much of each GPU's memory is lent, and who is told what the owner's policy wants to know.
        self.lent_memory = 1.0
        self.on_facts: Callable[[tuple[GpuFacts, ...]], None] = lambda facts: None
        # Told of the GPUs that are lent, at each look.
        self.on_look: Callable[[tuple[Device, ...]], Awaitable[None]] = _nothing

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled. The GPUs are known when this has started."""
        try:
            await self.look()
            task_status.started()
            await self._keep_looking()
        finally:
            self.claims.close()

    async def _keep_looking(self) -> None:
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
            if self._any:
                await self.claims.open()
            self.claims.tell(self._held_now(), self._clock.now_us())
            claims = self.claims.others() if self._any else {}
            pids = {OURS: self._pid, **{str(each.pid): each.pid for some in claims.values() for each in some}}
            nodes = await trio.to_thread.run_sync(owners, pids if self._any else {})
        if found.findings != self.findings:
            log.info("%s", " ".join(found.findings))
        self.findings = found.findings
        lent = tuple(each for each in found.devices if self._lends(each))
        held = self._held_now()
        used = {each.uuid: _pids(each.processes, nodes) for each in lent}
        claims = self._believed.of(claims, used, self._clock.now_us())
        # Loads are of the last second: of one that was held at the last look, or since, it may be ours.
        seen = _Seen(nodes, claims, held, held | self._held)
        self._held = held
        # First, so that none is given away that the policy holds back.
        self.on_facts(tuple(self._facts(each, seen) for each in lent))
        self._submit(ev.GpusSeen(tuple(self._gpu(each, nodes) for each in lent)))
        await self.on_look(lent)

    def _held_now(self) -> frozenset[str]:
        return frozenset(gpu.uuid for hold in self._desk.holders().values() for gpu in hold.gpus)

    def _facts(self, device: Device, seen: _Seen) -> GpuFacts:
        claims = [each for each in seen.claims.get(device.uuid, ()) if not self.claims.is_ours(device.uuid, each)]
        return _facts(device, seen, bool(claims))

    def _gpu(self, device: Device, nodes: Owners) -> Gpu:
        """Where only a part of its memory is lent, the owner's programs may use the rest, which the policy watches."""
        used = self.lent_memory >= 1 and _used(device.processes, nodes)
        memory_mib = int(device.memory_mib * min(1.0, self.lent_memory))
        return Gpu(
            device.uuid, device.model, memory_mib, min(memory_mib, device.memory_free_mib),
            device.fault or (USED if used else FREE), device.driver, device.capability, device.near,
        )  # fmt: skip

    def _lends(self, device: Device) -> bool:
        if isinstance(self._lent, str):
            return self._lent == "all"
        return bool({device.uuid, device.index} & {str(each) for each in self._lent})

    async def sample(self) -> None:
        """Meter every GPU that is held."""
        uuids = sorted(self._held_now())
        self.claims.tell(uuids, self._clock.now_us())
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
        if any(reading.fault for reading in readings) or not self._held_now() <= self._held:
            # One that was just taken may have been taken by another node of this machine, too.
            await self.look()

    def _check_shares(self, reading: Reading, ours: Owners) -> None:
        """The driver does not keep those who share a GPU to their part of its memory: we look, twice a second."""
        for worker, hold in self._desk.holders().items():
            gpu = next((each for each in hold.gpus if each.uuid == reading.uuid), None)
            mine = sum(each.memory_mib or 0 for each in reading.present if ours.get(each.pid, ("", 0))[0] == worker)
            if gpu and hold.share_mib and mine > hold.share_mib:
                self._submit(ev.LimitBroken(worker, "it took more of its GPU than its share", gpu_mib=mine))
            elif gpu and self.lent_memory < 1 and mine > gpu.memory_mib:
                why = "it took more of its GPU than its owner lends"
                self._submit(ev.LimitBroken(worker, why, failure=_beyond(gpu, mine)))


async def _nothing(devices: tuple[Device, ...]) -> None: ...


def _beyond(gpu: Gpu, used_mib: int) -> Failure:
    error = ResourceExceededError(
        f"The worker took {used_mib} MiB of a GPU of which {gpu.memory_mib} MiB are lent.",
        why="the rest is its owner's",
        fix=f'Take less, or ask for more: gpu="any:>={used_mib / 1024:.0f}GB".',
    )
    return Failure.of(error)


def _pids(processes: Sequence[GpuProcess], nodes: Owners) -> set[int]:
    """The other nodes of which something is among these."""
    names = {nodes[each.pid][0] for each in processes if each.pid in nodes}
    return {int(name) for name in names if name != OURS}


def _facts(device: Device, seen: _Seen, neighbour: bool) -> GpuFacts:
    """Of a GPU that a worker holds, processes that we do not see may be that worker's: see `_is_other`."""
    if device.fault:
        return GpuFacts(device.uuid, device.index)
    held, theirs = device.uuid in seen.held, bool(seen.claims.get(device.uuid))
    others = [each for each in device.processes if each.pid not in seen.nodes and (not held or _exists(each.pid))]
    told = [each.memory_mib for each in others if each.memory_mib is not None]
    return GpuFacts(
        device.uuid,
        device.index,
        _used(others, seen.nodes),
        device.temperature_c,
        None if device.power_mw is None else device.power_mw / 1000,
        device.memory_mib,
        sum(told),
        None if theirs or device.uuid in seen.recently else device.load_milli,
        neighbour or None,
    )


def _used(processes: Sequence[GpuProcess], nodes: Owners) -> bool:
    """Whether programs of no node use it. One whose memory is not told counts as using it."""
    others = [each for each in processes if each.pid not in nodes]
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
    return process.pid not in ours and not process.graphics and _exists(process.pid)


def _exists(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")
