"""A plan as data: which machines there are, what is called when, and what goes wrong when. Read from TOML."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from potluck.errors import InvalidError

PLANS = Path(__file__).with_name("plans")

Kind = Literal["kill", "unplug", "freeze", "pause", "cut"]


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A node. Without `lends`, it only calls."""

    name: str
    cpus: int = 1
    memory_mib: int = 1024
    lends: bool = True


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A map that is placed at `node`, all of its inputs at once; each runs `run_s` seconds. Of each `raises_every`
    inputs the last raises an exception."""

    name: str
    at_s: float
    node: str
    inputs: int = 1
    run_s: float = 0.1
    raises_every: int = 0

    def raises(self, index: int) -> bool:
        return self.raises_every > 0 and index % self.raises_every == self.raises_every - 1


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What befalls some nodes: "kill" ends the process, and the system says so to its peers; "unplug" takes its power,
    and nobody says anything; "freeze" stops it for `for_s` seconds; "pause" is its owner's, who wants it back at once
    for so long; "cut" lets nothing pass between these nodes and all others for so long."""

    at_s: float
    kind: Kind
    nodes: tuple[str, ...]
    for_s: float = 0.0


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Times are seconds from when everybody knows everybody. After `ends_s` all must be over, receipts too.
    `latency_ms` is one way; the third tier has it where the kernel can delay packets."""

    nodes: tuple[Machine, ...]
    calls: tuple[Call, ...]
    ends_s: float
    faults: tuple[Fault, ...] = ()
    latency_ms: float = 0.5

    def call(self, name: str) -> Call:
        return next(call for call in self.calls if call.name == name)

    def widened(self, lenders: int) -> Plan:
        """The same with so many lenders, those named first, then ones that nothing befalls; and with as much more to
        do, or all would be over before anything befalls anybody."""
        had = sum(node.lends for node in self.nodes)
        more = max(0, lenders - had)
        extra = tuple(Machine(f"more{number}") for number in range(more))
        calls = tuple(msgspec.structs.replace(call, inputs=call.inputs * (had + more) // had) for call in self.calls)
        return msgspec.structs.replace(self, nodes=self.nodes + extra, calls=calls)


def read(path: Path) -> Plan:
    """Raises `InvalidError`, saying what is wrong in the file."""
    try:
        plan = msgspec.toml.decode(path.read_bytes(), type=Plan)
    except (OSError, msgspec.DecodeError) as error:
        raise InvalidError(f"{path} is no plan.", why=str(error), fix=f"See {PLANS} for some.") from None
    for why in _mistakes(plan):
        raise InvalidError(f"{path} is no plan that can be run.", why=why, fix="Mend that line.")
    return plan


def _mistakes(plan: Plan) -> Iterator[str]:
    known, calls = [node.name for node in plan.nodes], [call.name for call in plan.calls]
    yield from (f"there are two nodes {name!r}" for name in known if known.count(name) > 1)
    yield from (f"there are two calls {name!r}" for name in calls if calls.count(name) > 1)
    placed = {call.node for call in plan.calls}
    yield from (f"nobody is called {name!r}" for name in sorted(placed - {*known}))
    for fault in plan.faults:
        yield from (f"nobody is called {name!r}" for name in fault.nodes if name not in known)
        yield from (f"{name!r} places calls, so it must stay" for name in fault.nodes if name in placed)
    yield from (f"{call.name!r} has no inputs" for call in plan.calls if call.inputs < 1)
    last_s = max([0.0, *(call.at_s for call in plan.calls), *(fault.at_s for fault in plan.faults)])
    if plan.ends_s <= last_s:
        yield f"ends_s is {plan.ends_s:g}, and something is to happen at {last_s:g}"
