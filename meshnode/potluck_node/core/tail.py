"""The end of a map: inputs that wait or hang on one peer while another has nothing to do. Pure.

An input that no worker has begun is moved. One that runs much longer than the others is run a second time elsewhere,
and the first outcome counts (the tied and hedged requests of Dean and Barroso, "The Tail at Scale", 2013).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass

from potluck_node.core.demand import Function, Lease

# A worker takes what it was sent within milliseconds, and says so within a round trip; after this it has other things
# to do.
MOVE_AFTER_US = 1_000_000
# "Much longer": than 3 times the mean, and longer than a second, which a machine may well pause; and not before a mean
# of some inputs is known.
HEDGE_FACTOR, HEDGE_MIN_US, HEDGE_SAMPLES = 3, 1_000_000, 4


@dataclass(frozen=True, slots=True)
class Move:
    """Send `input` by the lease `to`; with `drop`, take it from there first."""

    input: int
    to: str
    drop: str = ""


def moves(
    function: Function, leases: Mapping[str, Lease], now_us: int, awaited: Container[int],
    hedgeable: Callable[[int], bool], may: Callable[[int, str], bool] = lambda number, name: True,
) -> tuple[list[Move], int | None]:  # fmt: skip
    """What to do now, and when to look again; `may` says whether a lease may have an input. Only called when nothing is
    queued."""
    idle = [name for name in sorted(function.leases) if leases[name].up and leases[name].free() > 0]
    if not idle or len(function.leases) < 2:
        return [], None
    found: list[Move] = []
    free = {name: leases[name].free() for name in idle}
    later: list[int] = []
    for donor in sorted(function.leases):
        for number, sent in leases[donor].inputs.items():
            due_us = _due_us(function, sent.sent_us, sent.began_us, hedgeable(number))
            to = next(
                (name for name in idle if free[name] and number not in leases[name].inputs and may(number, name)), ""
            )
            if due_us is None or not to or number not in awaited or _copies(function, leases, number) > 1:
                continue
            if due_us > now_us:
                later.append(due_us)
            else:
                free[to] -= 1
                found.append(Move(number, to, "" if sent.began_us else donor))
    return found, min(later, default=None)


def _due_us(function: Function, sent_us: int, began_us: int, hedgeable: bool) -> int | None:
    if not began_us:
        return sent_us + MOVE_AFTER_US
    if not hedgeable or function.finished < HEDGE_SAMPLES:
        return None
    return began_us + max(HEDGE_MIN_US, HEDGE_FACTOR * function.mean_us)


def _copies(function: Function, leases: Mapping[str, Lease], number: int) -> int:
    return sum(number in leases[name].inputs for name in function.leases)
