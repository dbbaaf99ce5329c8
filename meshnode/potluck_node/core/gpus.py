"""Which worker holds which GPU. Pure: what the machine has comes in, decisions go out.

A GPU is held whole by one worker, from before its sandbox starts until after it is gone; a share of its memory only
where the owner allows sharing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from potluck.gpus import GpuRequest, gpu_matches, parse_gpu
from potluck.wire.offer import FREE, HELD, LEASED, NEIGHBOUR, OFFER_GPUS_MAX, PASSING, USED, GpuOffer

# With more GPUs to choose from than this, a set of neighbours is sought among the first so many: 16 over 8 are 12,870.
NEIGHBOURS_MAX = 16
# Nobody counts further: a peer may ask for shares of one MiB.
HOLDERS_MAX = 64


@dataclass(frozen=True)
class Gpu:
    """One GPU, or one MIG instance. `state` is "free", "used by the owner", or what is wrong with it.

    `near` says how far others are, as (uuid, NVML's topology level): the lower the nearer.
    """

    uuid: str
    model: str
    memory_mib: int
    memory_free_mib: int = 0
    state: str = FREE
    driver: str = ""
    capability: int = 0
    near: tuple[tuple[str, int], ...] = ()

    def works(self) -> bool:
        return self.state.startswith(PASSING)


@dataclass(frozen=True)
class Hold:
    """What a worker holds; `share_mib` is 0 for whole GPUs."""

    gpus: tuple[Gpu, ...]
    share_mib: int = 0

    def has(self, uuid: str) -> bool:
        return any(gpu.uuid == uuid for gpu in self.gpus)

    def helps(self, requests: Sequence[str]) -> bool:
        """Whether giving it up brings any of these requests nearer."""
        wanted = [parse_gpu(text) for text in requests]
        return any(gpu_matches(each, gpu.model, gpu.memory_mib) for each in wanted for gpu in self.gpus)


class GpuDesk:
    """Holders are named by whoever takes. `share` is the owner's word on sharing."""

    def __init__(self, share: bool = False) -> None:
        self._share = share
        self._gpus: dict[str, Gpu] = {}
        self._holds: dict[str, Hold] = {}
        self._blocked: dict[str, str] = {}

    def seen(self, gpus: Iterable[Gpu]) -> dict[str, str]:
        """Take the machine's present GPUs; returns the holders whose GPU is gone, with the reason in words."""
        before, self._gpus = self._gpus, {gpu.uuid: gpu for gpu in gpus}
        for hold in self._holds.values():
            for gpu in hold.gpus:
                missing = replace(before.get(gpu.uuid, gpu), state="has disappeared from the machine")
                self._gpus.setdefault(gpu.uuid, missing)
        return {holder: why for holder, hold in self._holds.items() if (why := self._broken(hold))}

    def _broken(self, hold: Hold) -> str:
        broken = [self._gpus[gpu.uuid] for gpu in hold.gpus if not self._gpus[gpu.uuid].works()]
        return "; ".join(f"its GPU {gpu.model} ({gpu.uuid}) {gpu.state}" for gpu in broken)

    def block(self, states: Mapping[str, str]) -> None:
        """Do not lend these GPUs, each with the state that others read; all others are as the machine says."""
        self._blocked = dict(states)

    @property
    def blocked(self) -> bool:
        """Whether any is."""
        return bool(self._blocked)

    def why_blocked(self, hold: Hold) -> str:
        """Of what a holder has, in words; "" when nothing of it is."""
        mine = [gpu for gpu in hold.gpus if gpu.uuid in self._blocked]
        return "; ".join(f"its GPU {gpu.model} is {self._blocked[gpu.uuid].removeprefix('is ')}" for gpu in mine)

    def why_held(self, requests: Sequence[str]) -> str:
        """Why none is to be had for a request, if it is for what is blocked."""
        matching = [gpu for text in requests for gpu in self._matching(parse_gpu(text))]
        return next((f"a GPU is {gpu.state.removeprefix('is ')}" for gpu in matching if gpu.uuid in self._blocked), "")

    def why_all_held(self, requests: Sequence[str]) -> str:
        """The same, if that is so of all that work."""
        matching = [gpu for text in requests for gpu in self._matching(parse_gpu(text)) if self._gpus[gpu.uuid].works()]
        return self.why_held(requests) if all(gpu.uuid in self._blocked for gpu in matching) else ""

    def _known(self) -> Iterator[Gpu]:
        """All GPUs, as the owner lends them."""
        for gpu in self._gpus.values():
            blocked = self._blocked.get(gpu.uuid) if gpu.works() else None
            yield replace(gpu, state=blocked) if blocked else gpu

    # Taking

    def take(self, holder: str, requests: Sequence[str]) -> Hold | None:
        """Give `holder` what the first request that can be met asks for. Raises `ValueError` if it holds some."""
        if holder in self._holds:
            raise ValueError(f"{holder} holds GPUs already")
        hold = self._find(requests, self._holds.values(), lambda gpu: gpu.state == FREE)
        if hold:
            self._holds[holder] = hold
        return hold

    def release(self, holder: str) -> Hold | None:
        """Take back what a holder has, if it has anything."""
        return self._holds.pop(holder, None)

    def holders(self) -> dict[str, Hold]:
        """Who holds what."""
        return dict(self._holds)

    def workers_max(self, requests: Sequence[str]) -> int:
        """How many holders there could ever be at once."""
        return self._count(requests, [], Gpu.works)

    def workers_now(self, requests: Sequence[str], idle: Collection[str] = ()) -> int:
        """How many more there could be now, if the `idle` holders gave up theirs."""
        busy = [hold for holder, hold in self._holds.items() if holder not in idle]
        return self._count(requests, busy, lambda gpu: gpu.state == FREE)

    def _count(self, requests: Sequence[str], holds: Iterable[Hold], usable: Callable[[Gpu], bool]) -> int:
        taken = list(holds)
        for count in range(HOLDERS_MAX):
            hold = self._find(requests, taken, usable)
            if hold is None:
                return count
            taken.append(hold)
        return HOLDERS_MAX

    def _find(self, requests: Sequence[str], holds: Iterable[Hold], usable: Callable[[Gpu], bool]) -> Hold | None:
        holds = list(holds)
        for wanted in map(parse_gpu, requests):
            fitting = [gpu for gpu in self._matching(wanted) if usable(gpu) and self._room(gpu, wanted, holds)]
            if len(fitting) >= wanted.amount:
                return Hold(_nearest(fitting, wanted.amount), wanted.memory_mib if wanted.share else 0)
        return None

    def _matching(self, wanted: GpuRequest) -> Iterator[Gpu]:
        return (gpu for gpu in self._known() if gpu_matches(wanted, gpu.model, gpu.memory_mib))

    def _room(self, gpu: Gpu, wanted: GpuRequest, holds: Iterable[Hold]) -> bool:
        here = [hold for hold in holds if hold.has(gpu.uuid)]
        if not wanted.share:
            return not here
        return self._share and all(hold.share_mib for hold in here) and wanted.memory_mib <= _left(gpu, here)

    # In words and on the wire

    def why_never(self, requests: Sequence[str]) -> str:
        """Why no holder could ever have this here, or ""."""
        if not requests or self.workers_max(requests):
            return ""
        wanted = [parse_gpu(text) for text in requests]
        if any(each.share for each in wanted) and not self._share:
            return "its owner lends GPUs whole: ask with >= for the memory"
        matching = [gpu for each in wanted for gpu in self._matching(each)]
        if broken := next((gpu for gpu in matching if not gpu.works()), None):
            return f"its {broken.model} {broken.state}"
        owned = ", ".join(f"{gpu.model} ({gpu.memory_mib} MiB)" for gpu in self._gpus.values())
        return f"it lends {owned or 'no GPU'}, and {' or '.join(requests)} was asked for"

    def why_not_now(self, requests: Sequence[str]) -> str:
        """What a request that could be met at another time waits for, or ""."""
        matching = [gpu for text in requests for gpu in self._matching(parse_gpu(text))]
        for state in (USED, HELD, NEIGHBOUR):
            if any(gpu.state == state for gpu in matching):
                return f"a GPU is {state}"
        return "its GPUs are leased" if matching else ""

    def offers(self, idle: Collection[str] = ()) -> tuple[GpuOffer, ...]:
        """Each GPU with its state; what idle workers hold counts as free, since they make room."""
        holds = [hold for holder, hold in self._holds.items() if holder not in idle]
        return tuple(self._offer(gpu, holds) for gpu in itertools.islice(self._known(), OFFER_GPUS_MAX))

    def _offer(self, gpu: Gpu, holds: list[Hold]) -> GpuOffer:
        here = [hold for hold in holds if hold.has(gpu.uuid)]
        state = LEASED if here and gpu.works() and gpu.uuid not in self._blocked else gpu.state
        left = min(gpu.memory_free_mib, _left(gpu, here)) if here else gpu.memory_free_mib
        return GpuOffer(gpu.uuid, gpu.model, gpu.memory_mib, left, gpu.driver, gpu.capability, state, self._share)


def _left(gpu: Gpu, here: Iterable[Hold]) -> int:
    """Memory that no hold has, MiB."""
    return max(0, gpu.memory_mib - sum(hold.share_mib or gpu.memory_mib for hold in here))


def _nearest(fitting: Sequence[Gpu], count: int) -> tuple[Gpu, ...]:
    """One: the smallest that fits, so that large ones are left for those who ask. Several: those next to each other."""
    if count == 1:
        return (min(fitting, key=lambda gpu: gpu.memory_mib),)
    sets = itertools.combinations(fitting[: max(count, NEIGHBOURS_MAX)], count)
    return min(sets, key=_spread)


def _spread(gpus: Sequence[Gpu]) -> int:
    uuids = {gpu.uuid for gpu in gpus}
    return sum(level for gpu in gpus for other, level in gpu.near if other in uuids)
