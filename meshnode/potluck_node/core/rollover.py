"""How a new version of an app takes over from the one before. Pure.

    warming ─every function has a worker─▶ taking ─recorded─▶ over
       └─a function cannot start, no time is left, another came─▶ failed ◀─another came─┘

Whatever happens, the version before stays in charge until the record says otherwise, so there is always one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from potluck.wire.apps import NamedFunction
from potluck.wire.common import FunctionSpec, function_id

# How long a new version may take until each function that is in use has a worker: an image travels, and a model loads.
WARM_US_MAX = 900_000_000
# How long WebSockets of the version before may stay open. Requests and calls end with their own timeouts.
DRAIN_S = 300.0

_OTHER = "another version was deployed meanwhile"

ROLLING, RECREATE = "rolling", "recreate"
STRATEGIES = (ROLLING, RECREATE)


@dataclass(frozen=True, slots=True)
class Warm:
    """A function of the new version has a worker that is ready."""

    function: str


@dataclass(frozen=True, slots=True)
class Cold:
    """No worker of it can be had, as far as anybody knows."""

    function: str
    why: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """Whether the record has it in charge now; not if another version came."""

    done: bool


@dataclass(frozen=True, slots=True)
class Superseded:
    """Another version came."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


@dataclass(frozen=True, slots=True)
class TakeOver:
    """Record that it is in charge."""


@dataclass(frozen=True, slots=True)
class Retire:
    """Let the version before finish what it has, then end."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Record that it never will be, and end its workers."""

    why: str


Event = Warm | Cold | Recorded | Superseded | Tick
Action = TakeOver | Retire | GiveUp


class Rollover:
    """`needs` are the ids of the functions that must have a worker; `begun_us` is now."""

    def __init__(self, needs: Iterable[str], begun_us: int) -> None:
        self._needs = set(needs)
        self._state = "warming"
        self._deadline_us = begun_us + WARM_US_MAX

    @property
    def wake_us(self) -> int | None:
        """When it wants a `Tick`."""
        return self._deadline_us if self._state == "warming" else None

    @property
    def ended(self) -> bool:
        return self._state in ("over", "failed")

    def handle(self, event: Event, now_us: int) -> list[Action]:
        """Take one event and return what to do, in order."""
        if self._state == "taking" and isinstance(event, Recorded):
            return self._recorded(event.done)
        if self._state != "warming":
            return []
        if isinstance(event, Superseded):
            return self._fail(_OTHER)
        if isinstance(event, Warm):
            self._needs.discard(event.function)
        elif isinstance(event, Cold) and event.function in self._needs:
            return self._fail(event.why)
        if not self._needs:
            self._state = "taking"
            return [TakeOver()]
        if now_us >= self._deadline_us:
            return self._fail(f"{len(self._needs)} functions had no worker after {WARM_US_MAX // 1_000_000} s")
        return []

    def _recorded(self, done: bool) -> list[Action]:
        if not done:
            return self._fail(_OTHER)
        self._state = "over"
        return [Retire()]

    def _fail(self, why: str) -> list[Action]:
        self._state = "failed"
        return [GiveUp(why)]


def needed(
    old: Sequence[NamedFunction], new: Sequence[NamedFunction], running: Iterable[FunctionSpec], warm: Iterable[str]
) -> dict[str, FunctionSpec]:
    """What must have a worker before `new` takes over, by function id: what has one in `old`. `running` are those that
    have some for this node, `warm` the ids of those whose sandboxes stand by anywhere. Functions that are the same in
    both keep their workers."""
    named, ids = {each.name: each for each in new}, set(warm)
    found: dict[str, FunctionSpec] = {}
    for each in old:
        after = named.get(each.name)
        if after is None:
            continue
        for spec in _used(each, running, ids):
            wanted = _like(after, each, spec)
            if wanted is not None and function_id(wanted) != function_id(spec):
                found[function_id(wanted)] = wanted
    return found


def _used(named: NamedFunction, running: Iterable[FunctionSpec], warm: set[str]) -> list[FunctionSpec]:
    """A function, or the objects of a class, as they are in use."""
    spec = named.spec
    objects = [each for each in running if each.name == spec.name and _same_but_parameters(each, spec)]
    return (
        [*objects, spec]
        if function_id(spec) in warm and spec.parameters not in [each.parameters for each in objects]
        else objects
    )


def _same_but_parameters(one: FunctionSpec, other: FunctionSpec) -> bool:
    return replace(one, parameters=b"", scaling=other.scaling, secrets=()) == replace(other, parameters=b"", secrets=())


def _like(after: NamedFunction, before: NamedFunction, spec: FunctionSpec) -> FunctionSpec | None:
    """The new version of an object of a class, if its class still has the same parameters."""
    return replace(after.spec, parameters=spec.parameters) if after.parameters == before.parameters else None
