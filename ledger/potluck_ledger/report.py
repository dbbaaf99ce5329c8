"""Who used and gave how much, from a verified journal, as sums by peer, function, GPU model or day. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import NamedTuple

from potluck_ledger.entries import LABEL_MAX, Receipt, cut
from potluck_ledger.machine_time import machine_us

NO_GPU = "no GPU"


@dataclass
class Line:
    """Sums of some receipts. Times are microseconds of workers, so that inputs which share a worker count once.
    `given_us` and `used_us` are of receipts that both signed, `unsigned_us` of others. `gpu_us` is how long GPUs were
    taken, each of them once, whoever shared it (`machine_time`)."""

    name: str
    leases: int = 0
    inputs: int = 0
    given_us: int = 0
    used_us: int = 0
    busy_us: int = 0
    energy_mj: int = 0
    unsigned_us: int = 0
    gpu_us: int = 0


def _day(receipt: Receipt) -> str:
    return datetime.fromtimestamp(receipt.ended_us / 1e6, UTC).date().isoformat()


def _other(owner: str) -> Callable[[Receipt], str]:
    return lambda receipt: receipt.caller if receipt.provider == owner else receipt.provider


def keys(owner: str) -> dict[str, Callable[[Receipt], str]]:
    """By what can be summed up: the name of each way, and how it names a receipt's line."""
    return {
        "user": _other(owner),
        "function": lambda receipt: receipt.label,
        "app": lambda receipt: receipt.label.partition(".")[0],
        "gpu": lambda receipt: receipt.gpu_model or NO_GPU,
        "day": _day,
    }


def summed(owner: str, by: str, receipts: Iterable[tuple[Receipt, bool]]) -> list[Line]:
    """Receipts, each with whether both signed it, summed up; days in order, else the largest first. Each lease counts
    once, however often it is recorded. Raises `KeyError` for a way that there is not."""
    key, lines, seen = keys(owner)[by], dict[str, Line](), set[str]()
    receipts = list(receipts)
    gpu_us = machine_us(receipt for receipt, _ in receipts)
    for receipt, is_whole in receipts:
        if receipt.lease in seen:
            continue
        seen.add(receipt.lease)
        name = key(receipt)
        line = lines.setdefault(name, Line(name))
        _add(line, owner, receipt, is_whole)
        line.gpu_us += gpu_us.get(receipt.lease, 0)
    return sorted(lines.values(), key=_by_name if by == "day" else _by_size)


def _by_name(line: Line) -> tuple[int, str]:
    return 0, line.name


def _by_size(line: Line) -> tuple[int, str]:
    return -line.given_us - line.used_us, line.name


def _add(line: Line, owner: str, receipt: Receipt, is_whole: bool) -> None:
    line.leases += 1
    line.inputs += receipt.inputs
    line.busy_us += receipt.busy_us
    line.energy_mj += receipt.energy_mj
    if not is_whole:
        line.unsigned_us += receipt.lease_us
    elif receipt.provider == owner:
        line.given_us += receipt.lease_us
    else:
        line.used_us += receipt.lease_us


def labelled(app: str, function: str) -> str:
    """How receipts name a function: cut to the bytes that they have for it."""
    return cut(f"{app}.{function}", LABEL_MAX)


class Cost(NamedTuple):
    """What an input of a function usually took on one GPU model: the median over leases, microseconds."""

    gpu_model: str
    inputs: int
    input_us: int


def usual(receipts: Iterable[tuple[Receipt, bool]]) -> dict[str, list[Cost]]:
    """What inputs of each function took so far, by label (`labelled`), the GPU model with most inputs first."""
    seen: dict[tuple[str, str], list[Receipt]] = {}
    for receipt, _ in receipts:
        if receipt.inputs:
            seen.setdefault((receipt.label, receipt.gpu_model or NO_GPU), []).append(receipt)
    costs: dict[str, list[Cost]] = {}
    for (label, model), found in seen.items():
        each_us = round(median(receipt.lease_us / receipt.inputs for receipt in found))
        costs.setdefault(label, []).append(Cost(model, sum(receipt.inputs for receipt in found), each_us))
    for found_costs in costs.values():
        found_costs.sort(key=lambda cost: (-cost.inputs, cost.gpu_model))
    return costs
