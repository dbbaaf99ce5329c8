"""What leases used of GPUs: samples in, busy time and energy of each lease out. Pure.

Between two samples of a GPU its rate is taken as even. A lease gets the part of it in which an input of the lease
occupied the worker, so warm waiting between inputs is nobody's. What no sample covers counts as not busy; how much
that was is said in the receipt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from potluck_node.core.gpus import Gpu, Hold

# Rates say what was in the last second or so; after a longer silence (suspend, a driver that hung) they say nothing.
GAP_MAX_US = 5_000_000
# Finished inputs that wait for the next sample: half a second of inputs of 1 ms, twice. Older ones stay unmeasured.
SPELLS_MAX = 1024


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """What the driver says of one process: `milli` thousandths of the GPU until `at_us` (Unix, microseconds)."""

    pid: int
    milli: int
    at_us: int


@dataclass(frozen=True, slots=True)
class GpuSample:
    """One look at a GPU. `workers` has thousandths of the GPU by worker since the sample before, None where the driver
    does not tell processes apart; `device_milli` is that of all together. `others` means processes that are not ours.
    Energy counts from an unknown start, and may be reset.
    """

    uuid: str
    at_us: int
    energy_mj: int | None = None
    power_mw: int | None = None
    device_milli: int | None = None
    workers: Mapping[str, int] | None = None
    others: bool = False


def by_worker(uses: Iterable[ProcessUse], owners: Mapping[int, tuple[str, int]]) -> dict[str, int]:
    """Thousandths by worker. `owners` maps pids to (worker, start of the process): what a process of the same number
    did before ours began is not ours."""
    found: dict[str, int] = {}
    for use in uses:
        worker, started_us = owners.get(use.pid, ("", 0))
        if worker and use.at_us >= started_us:
            found[worker] = min(1000, found.get(worker, 0) + use.milli)
    return found


@dataclass
class GpuUse:
    """What one lease used. Times in microseconds, of which several GPUs count the mean, so that busy ≤ lease holds;
    energy is that of all GPUs together. `seen_us` is the busy time's coverage by method."""

    gpus: dict[str, Gpu] = field(default_factory=dict)
    shared: bool = False
    occupied_us: int = 0
    busy_us: float = 0
    energy_mj: float = 0
    seen_us: dict[str, float] = field(default_factory=dict)
    energy_us: dict[str, float] = field(default_factory=dict)
    others: bool = False

    def method(self) -> str:
        """Which figures come from where, for the receipt."""
        return f"wall; busy: {_main(self.seen_us)}; energy: {_main(self.energy_us)}"

    def quality(self) -> str:
        """How far to trust them."""
        covered = min(100, round(100 * sum(self.seen_us.values()) / self.occupied_us)) if self.occupied_us else 100
        notes = ["provider's word", f"{covered}% sampled"]
        notes += ["GPU shared"] if self.shared else []
        notes += ["others on it"] if self.others else []
        return ", ".join(notes)


def _main(by_method: Mapping[str, float]) -> str:
    return max(by_method, key=lambda name: by_method[name]) if by_method else "none"


@dataclass(slots=True)
class _Spell:
    """One input on a worker; `end_us` is None while it runs."""

    use: GpuUse
    start_us: int
    end_us: int | None = None

    def overlap_us(self, from_us: int, to_us: int) -> int:
        end_us = to_us if self.end_us is None else self.end_us
        return max(0, min(to_us, end_us) - max(from_us, self.start_us))


@dataclass(slots=True)
class _Worker:
    hold: Hold
    spells: deque[_Spell] = field(default_factory=lambda: deque(maxlen=SPELLS_MAX))
    ended: bool = False


class GpuMeters:
    """All leases of one node."""

    def __init__(self) -> None:
        self._workers: dict[str, _Worker] = {}
        self._uses: dict[str, GpuUse] = {}
        self._last: dict[str, GpuSample] = {}

    def start(self, worker: str, hold: Hold) -> None:
        """A worker gets its GPUs. Nothing of the time before is its own."""
        for name, old in list(self._workers.items()):
            if old.ended and any(hold.has(gpu.uuid) for gpu in old.hold.gpus):
                del self._workers[name]
        self._workers[worker] = _Worker(hold)

    def end(self, worker: str) -> None:
        """It is gone; the next sample still tells what it did before."""
        found = self._workers.get(worker)
        if found:
            found.ended = True

    def occupy(self, worker: str, lease: str, now_us: int) -> None:
        """A lease's first input begins on a worker."""
        found = self._workers.get(worker)
        if found:
            use = self._uses.setdefault(lease, GpuUse())
            use.gpus |= {gpu.uuid: gpu for gpu in found.hold.gpus}
            use.shared = use.shared or bool(found.hold.share_mib)
            found.spells.append(_Spell(use, now_us))

    def vacate(self, worker: str, lease: str, now_us: int) -> None:
        """Its last input there ends."""
        found, use = self._workers.get(worker), self._uses.get(lease)
        for spell in found.spells if found else ():
            if spell.use is use and spell.end_us is None:
                spell.end_us = max(spell.start_us, now_us)
                spell.use.occupied_us += spell.end_us - spell.start_us

    def close(self, lease: str) -> GpuUse | None:
        """The lease is over: its use, to which the next sample still adds."""
        return self._uses.pop(lease, None)

    def sampled(self, sample: GpuSample) -> None:
        """Share out what happened on a GPU since the last sample of it."""
        before, self._last[sample.uuid] = self._last.get(sample.uuid), sample
        users = {name: found for name, found in self._workers.items() if found.hold.has(sample.uuid)}
        if before and sample.at_us > before.at_us:
            for name, found in users.items():
                _share_out(name, found, list(users), before, sample)
        for name, found in users.items():
            self._forget(name, found)

    def _forget(self, name: str, worker: _Worker) -> None:
        """Drop the inputs that each GPU of the worker has been sampled after."""
        seen_us = min(self._last[gpu.uuid].at_us if gpu.uuid in self._last else 0 for gpu in worker.hold.gpus)
        while worker.spells and (end_us := worker.spells[0].end_us) is not None and end_us <= seen_us:
            worker.spells.popleft()
        if worker.ended and not worker.spells:
            del self._workers[name]


def _share_out(name: str, worker: _Worker, users: list[str], before: GpuSample, now: GpuSample) -> None:
    length_us, gpus = now.at_us - before.at_us, len(worker.hold.gpus)
    busy = _busy(name, now, users) if length_us <= GAP_MAX_US else None
    energy = _energy(before, now)
    part = _part(name, users, now)
    for spell in worker.spells:
        overlap_us = spell.overlap_us(before.at_us, now.at_us)
        if not overlap_us:
            continue
        use = spell.use
        use.others = use.others or now.others
        if busy:
            use.busy_us += overlap_us * busy[1] / 1000 / gpus
            use.seen_us[busy[0]] = use.seen_us.get(busy[0], 0) + overlap_us / gpus
        if energy:
            use.energy_mj += energy[1] * part * overlap_us / length_us
            use.energy_us[energy[0]] = use.energy_us.get(energy[0], 0) + overlap_us / gpus


def _busy(name: str, now: GpuSample, users: list[str]) -> tuple[str, int] | None:
    """(method, thousandths) of one worker. By elimination, where it has the GPU alone and no process of it is named:
    drivers do not see into containers, and MIG instances and WSL know no processes."""
    if now.workers and name in now.workers:
        return "processes", now.workers[name]
    if len(users) == 1 and not now.others and now.device_milli is not None:
        return "device", min(1000, now.device_milli)
    return None if now.workers is None else ("processes", 0)


def _energy(before: GpuSample, now: GpuSample) -> tuple[str, float] | None:
    """(method, millijoules) of the whole GPU. A counter that went back was reset (driver reload, GPU reset)."""
    if before.energy_mj is not None and now.energy_mj is not None and now.energy_mj >= before.energy_mj:
        return "counter", now.energy_mj - before.energy_mj
    powers = [power for power in (before.power_mw, now.power_mw) if power is not None]
    length_us = now.at_us - before.at_us
    return ("power", sum(powers) / len(powers) * length_us / 1e6) if powers and length_us <= GAP_MAX_US else None


def _part(name: str, users: list[str], now: GpuSample) -> float:
    """The share of a GPU's energy that is this worker's: by what each did, evenly when none did anything."""
    busy = {user: (now.workers or {}).get(user, 0) for user in users}
    total = sum(busy.values())
    return busy[name] / total if total else 1 / len(users)
