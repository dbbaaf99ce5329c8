"""How long GPUs were taken by leases, of which several may have had one GPU at the same time. Pure.

A receipt says when a lease began and ended, and how much of that its workers ran: taken as even in between, and over
its GPUs. Where leases overlap on one GPU and all together would fill it more than once, they share it by what each had.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from potluck_ledger.entries import Receipt

# One lease on one GPU: from, until, how much of the GPU it has, its name.
_Spell = tuple[int, int, float, str]


def machine_us(receipts: Iterable[Receipt]) -> dict[str, int]:
    """Microseconds of GPUs by lease: no GPU is counted for longer than it was taken. Leases without a GPU are left
    out; each counts once."""
    spells: defaultdict[str, list[_Spell]] = defaultdict(list)
    seen: set[str] = set()
    for receipt in receipts:
        if receipt.gpu and receipt.lease_us and receipt.lease not in seen:
            seen.add(receipt.lease)
            gpus = _gpus(receipt)
            span_us = max(1, receipt.ended_us - receipt.started_us)
            part = receipt.lease_us / span_us / len(gpus)
            for gpu in gpus:
                spells[gpu].append((receipt.started_us, receipt.started_us + span_us, part, receipt.lease))
    sums = dict.fromkeys(seen, 0.0)
    for gpu_spells in spells.values():
        _share_out(gpu_spells, sums)
    return {lease: round(us) for lease, us in sums.items()}


def _gpus(receipt: Receipt) -> list[str]:
    """Their uuids; those that did not fit the receipt ("GPU-1+7") are taken to be nobody else's."""
    named, _, more = receipt.gpu.partition("+")
    others = int(more) if more.isdecimal() and len(more) < 3 else 0
    return [*named.split(","), *(f"{receipt.lease}+{number}" for number in range(others))]


def _share_out(spells: list[_Spell], sums: dict[str, float]) -> None:
    """Add to each lease its part of one GPU, from change to change."""
    changes = sorted([*((each[0], 1, each) for each in spells), *((each[1], 0, each) for each in spells)])
    running: list[_Spell] = []
    last = 0
    for at, begins, spell in changes:
        full = max(1.0, sum(part for _, _, part, _ in running))
        for _, _, part, lease in running:
            sums[lease] += (at - last) * part / full
        last = at
        if begins:
            running.append(spell)
        else:
            running.remove(spell)
