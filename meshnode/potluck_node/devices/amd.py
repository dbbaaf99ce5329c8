"""AMD GPUs, from what the kernel's amdgpu driver shows in sysfs and in /proc/<pid>/fdinfo. Blocking.

Reference: the kernel's Documentation/gpu/amdgpu/driver-misc.rst and Documentation/gpu/drm-usage-stats.rst.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from potluck_node.core.gpu_meter import ProcessUse
from potluck_node.devices.interface import Device, GpuProcess, Inventory, Reading

_VENDOR = "0x1002"


class Amd:
    """`root` is where /sys, /proc and /dev are."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._cards: dict[str, Path] = {}
        # By card: when it was read, and the engine time of each process then, nanoseconds.
        self._engines: dict[str, tuple[int, dict[int, int]]] = {}

    def inventory(self) -> Inventory:
        """Every card of the driver; one whose memory cannot be read says so."""
        folders = (self._root / "sys/class/drm").glob("card*/device")
        cards = [card for card in sorted(folders) if _text(card / "vendor") == _VENDOR]
        devices = [self._describe(card) for card in cards if re.fullmatch(r"card\d+", card.parent.name)]
        lacks_kfd = bool(devices) and not (self._root / "dev/kfd").exists()
        return Inventory(tuple(devices), ("AMD GPUs cannot compute without /dev/kfd: install ROCm.",) * lacks_kfd)

    def sample(self, uuids: Sequence[str]) -> tuple[Reading, ...]:
        """Readings of cards that an inventory has listed. amdgpu has power, and no energy counter for all."""
        return tuple(self._read(uuid) for uuid in uuids if uuid in self._cards)

    def _describe(self, card: Path) -> Device:
        name = card.parent.name
        uuid = f"amd-{_text(card / 'unique_id') or _slot(card)}"
        self._cards[uuid] = card
        total, used = _number(card / "mem_info_vram_total"), _number(card / "mem_info_vram_used")
        return Device(
            uuid=uuid,
            index=name.removeprefix("card"),
            maker="amd",
            model=_text(card / "product_name") or f"AMD GPU {_text(card / 'device')}",
            memory_mib=(total or 0) >> 20,
            memory_free_mib=((total or 0) - (used or 0)) >> 20,
            fault="" if total else "does not answer",
            nodes=tuple(self._root / "dev/dri" / node.name for node in sorted((card / "drm").glob("renderD*"))),
            processes=tuple(self._processes(card)),
            power_mw=self._power_mw(card),
            temperature_c=_scaled(self._hwmon(card, "temp1_input"), 1000),
            load_milli=_load_milli(card),
        )

    def _read(self, uuid: str) -> Reading:
        card = self._cards[uuid]
        load_milli = _load_milli(card)
        if load_milli is None and not _number(card / "mem_info_vram_total"):
            return Reading(uuid, fault="has disappeared")
        return Reading(
            uuid,
            power_mw=self._power_mw(card),
            device_milli=load_milli,
            processes=self._uses(uuid, card),
            present=tuple(self._processes(card)),
        )

    def _hwmon(self, card: Path, name: str) -> int | None:
        return next(
            (value for file in (card / "hwmon").glob(f"*/{name}") if (value := _number(file)) is not None), None
        )

    def _power_mw(self, card: Path) -> int | None:
        power_uw = self._hwmon(card, "power1_average")
        return _scaled(self._hwmon(card, "power1_input") if power_uw is None else power_uw, 1000)

    def _clients(self, card: Path) -> Iterator[tuple[int, str]]:
        """(pid, fdinfo) of each descriptor of this card that we may see."""
        slot = _slot(card)
        for file in (self._root / "proc").glob("[0-9]*/fdinfo/*"):
            text = _text(file)
            if f"drm-pdev:\t{slot}" in text:
                yield int(file.parts[-3]), text

    def _processes(self, card: Path) -> Iterator[GpuProcess]:
        memory: dict[int, int] = {}
        for pid, text in self._clients(card):
            kib = re.search(r"^drm-(?:resident-vram|memory-vram):\s+(\d+) KiB", text, re.MULTILINE)
            memory[pid] = max(memory.get(pid, 0), int(kib[1]) >> 10 if kib else 0)
        yield from (GpuProcess(pid, mib) for pid, mib in memory.items())

    def _uses(self, uuid: str, card: Path) -> tuple[ProcessUse, ...] | None:
        """Engine time since the reading before, as thousandths of the time that passed."""
        now_ns, engines = time.time_ns(), dict[int, int]()
        for pid, text in self._clients(card):
            busy = re.findall(r"^drm-engine-(?:gfx|compute):\s+(\d+) ns", text, re.MULTILINE)
            engines[pid] = engines.get(pid, 0) + sum(map(int, busy))
        before, self._engines[uuid] = self._engines.get(uuid), (now_ns, engines)
        if before is None:
            return None
        length_ns = max(1, now_ns - before[0])
        return tuple(
            ProcessUse(pid, max(0, min(1000, (ns - before[1].get(pid, 0)) * 1000 // length_ns)), now_ns // 1000)
            for pid, ns in engines.items()
        )


def _load_milli(card: Path) -> int | None:
    busy = _number(card / "gpu_busy_percent")
    return None if busy is None else busy * 10


def _slot(card: Path) -> str:
    """The PCI address, for example 0000:03:00.0."""
    return card.resolve().name


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _number(file: Path) -> int | None:
    text = _text(file)
    return int(text) if text.isdecimal() else None


def _scaled(value: int | None, by: int) -> int | None:
    return None if value is None else value // by
