"""The functions that simulated users call, and what their inputs do. A payload is "kind/call/index"."""

from __future__ import annotations

from potluck.runner.plain import MAGIC
from potluck.wire import FunctionSpec, RemoteException, Resources, RetryPolicy
from potluck_netsim.faults import Faults
from potluck_netsim.world import World

# Its declared imports are not in its image: it fails wherever it is tried.
BROKEN = "broken"
STRAGGLER_FACTOR = 30

_OK, _RAISES, _STRAGGLES = b"ok", b"raises", b"straggles"


def _spec(name: str, image: str, **changes: object) -> FunctionSpec:
    plain: dict[str, object] = {"module": "lab", "qualname": name, "timeout_us": 30_000_000}
    return FunctionSpec("lab", name, image * 32, "3.11", **(plain | changes))  # type: ignore[arg-type]


# With the mean time that an input runs, and how often the function is called (in thousandths).
FUNCTIONS: tuple[tuple[FunctionSpec, int, int], ...] = (
    (_spec("work", "aa"), 300_000, 400),
    (_spec("quick", "aa"), 2_000, 200),
    (_spec("heavy", "bb", resources=Resources((), 3000, 2048)), 2_000_000, 150),
    (_spec("flaky", "aa", retries=RetryPolicy(2, 500_000)), 100_000, 150),
    (_spec("hasty", "bb", timeout_us=1_000_000), 400_000, 60),
    (_spec("render", "cc", resources=Resources(("A10G",))), 400_000, 60),
    (_spec("gpu", "cc", resources=Resources(("H100",))), 100_000, 20),
    (_spec(BROKEN, "cc"), 100_000, 20),
)
_MEANS = {spec.name: mean_us for spec, mean_us, _ in FUNCTIONS}


# What should always run to its end, where a mesh has machines enough.
GOOD = ("work", "quick", "heavy", "flaky", "render")


def draw_function(world: World, names: tuple[str, ...] = ()) -> FunctionSpec:
    """One of those named, or of all."""
    some = [each for each in FUNCTIONS if not names or each[0].name in names]
    chosen: FunctionSpec = world.dice.choices([each[0] for each in some], [each[2] for each in some])[0]
    return chosen


def draw_payload(world: World, faults: Faults, call: str, index: int) -> bytes:
    kind = _RAISES if world.chance(faults.raise_milli) else _OK
    if kind is _OK and world.chance(faults.straggler_milli):
        kind = _STRAGGLES
    return b"%s/%s/%d" % (kind, call.encode(), index)


def run_us(function: FunctionSpec, payload: bytes, world: World) -> int:
    """How long a machine of ordinary speed takes."""
    needed_us = world.around(_MEANS.get(function.name, 100_000))
    return needed_us * STRAGGLER_FACTOR if payload.startswith(_STRAGGLES) else needed_us


def raises(payload: bytes) -> bool:
    return payload.startswith(_RAISES)


def result_of(payload: bytes) -> bytes:
    """Data, as peers must send that are not trusted."""
    return MAGIC + b"result of " + payload


def exception_of(payload: bytes) -> RemoteException:
    return RemoteException("ValueError", payload.decode(), "")
