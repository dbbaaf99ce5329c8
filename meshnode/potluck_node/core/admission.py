"""Whether a provider takes a lease, and the reason when not. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from potluck.errors import Error, InvalidError, RefusedError, VersionError
from potluck.gpus import checked_gpus
from potluck.network import checked_names, not_lent
from potluck.tiers import NO_GPU_TIERS, TIERS, at_least
from potluck.wire import PROTOCOL, Failure, FunctionSpec
from potluck.wire.lease import LeaseRefused, LeaseRequest
from potluck.wire.nested import DEPTH_MAX
from potluck_node.core.offers import CLOCK_SKEW_MAX_US, skew_text

BUSY_RETRY_US = 1_000_000
# As Modal's: inputs of one worker or batch, and how long a batch gathers.
INPUTS_MAX, BATCH_WAIT_MAX_US = 1000, 600_000_000
# More workers than this no mesh has; what is summed up stays small.
WORKERS_MAX = 100_000
SALT_BYTES_MAX = 64
WEB_KINDS = ("asgi", "wsgi", "fastapi", "server")


@dataclass(frozen=True)
class Machine:
    """What admission looks at. `workers_max` could ever run here; `workers_now` would find room now.

    `no_gpu` is why the GPUs asked for cannot be had here at all, `gpu_waits` what they wait for. `first` counts callers
    that wait for the same room and have used less of their share.
    """

    name: str
    paused: str
    workers_max: int
    workers_now: int
    no_gpu: str = ""
    gpu_waits: str = ""
    tiers: tuple[str, ...] = ("bwrap",)
    network: tuple[str, ...] = ()
    first: int = 0


def refuse(request: LeaseRequest, machine: Machine, now_us: int) -> LeaseRefused | None:
    """The refusal, or None when the lease is to be granted."""
    name, function = machine.name, request.function.name
    skew = now_us - request.now_us
    if request.protocol != PROTOCOL:
        older = "the caller's node" if request.protocol < PROTOCOL else name
        what = f"{name} speaks protocol {PROTOCOL}, the caller's node {request.protocol}."
        return _refused("version", VersionError(what, fix=f"Upgrade Potluck on {older}."))
    if machine.paused:
        return _refused("paused", RefusedError(f"{name} takes no work now.", why=machine.paused), BUSY_RETRY_US)
    if abs(skew) > CLOCK_SKEW_MAX_US:
        return _refused("clock", RefusedError(f"{name} and this node disagree about the time.", why=skew_text(skew)))
    if problem := nonsense(request.function):
        return _refused("function", InvalidError(f"{name} cannot run this function.", why=problem))
    if at_least(machine.tiers, request.function.tier) is None:
        what = f"{name} has no {request.function.tier or 'strict enough'} sandbox."
        tiers = ", ".join(machine.tiers) or "none, by its owner's settings strangers_sandbox and trust"
        return _refused("sandbox", RefusedError(what, why=f"it runs functions in {tiers}"))
    if lacking := not_lent(machine.network, request.function.network):
        return _refused("policy", RefusedError(f"{name} {lacking}.", why="the owner's setting `network` says so"))
    if machine.no_gpu:
        return _refused("gpu", RefusedError(f"{name} has no GPU for {function}.", why=machine.no_gpu))
    if not machine.workers_max:
        return _refused("policy", RefusedError(f"{name} does not lend as much as {function} asks for."))
    if not machine.workers_now:
        return _refused("busy", RefusedError(f"{name} is busy.", why=machine.gpu_waits), BUSY_RETRY_US)
    if machine.first:
        why = f"callers that have used less of their share wait for the same: {machine.first}"
        return _refused("busy", RefusedError(f"{name} is busy.", why=why), BUSY_RETRY_US)
    return None


def nonsense(spec: FunctionSpec) -> str:
    """What is impossible about a function's figures, or "". Peers may send anything."""
    need, retries = spec.resources, spec.retries
    if need.cpu_milli < 1 or need.memory_mib < 1 or spec.timeout_us < 1:
        return "it asks for no processor, no memory or no time"
    if min(retries.max_retries, retries.initial_delay_us, retries.backoff_milli, retries.max_delay_us) < 0:
        return "its retries are negative"
    if not re.fullmatch("[0-9a-f]{64}", spec.image):
        return "it names no image"
    if not _sane(spec):
        return "it asks for more inputs, workers or time than there can be"
    if problem := _odd_gpus(need.gpu) or _odd_network(spec.network):
        return problem
    if spec.tier and spec.tier not in TIERS:
        return f"{spec.tier[:32]!r} is no kind of sandbox"
    if spec.tier in NO_GPU_TIERS and need.gpu:
        return f"no GPU can be used in a {spec.tier} sandbox"
    if spec.web and (spec.web.kind not in WEB_KINDS or bool(spec.web.attribute) != bool(spec.parameters)):
        return "it answers no requests that there are"
    if spec.web and spec.sharing.batch_size:
        return "it answers requests in batches"
    if not spec.pickled and not (spec.module and spec.qualname):
        return "it names no function"
    return ""


def _sane(spec: FunctionSpec) -> bool:
    """Whether the figures of scaling and sharing are possible: as Modal's limits, where it has any."""
    sharing, scaling = spec.sharing, spec.scaling
    return (
        1 <= sharing.max_inputs <= INPUTS_MAX
        and 0 <= sharing.target_inputs <= sharing.max_inputs
        and 0 <= sharing.batch_size <= INPUTS_MAX
        and 0 <= sharing.batch_wait_us <= BATCH_WAIT_MAX_US
        and all(0 <= each <= WORKERS_MAX for each in (scaling.min_containers, scaling.buffer_containers))
        and 0 <= scaling.max_containers <= WORKERS_MAX
        and min(scaling.scaledown_us, spec.startup_timeout_us, spec.resources.scratch_mib) >= 0
        and len(spec.salt) <= SALT_BYTES_MAX
        and 0 <= spec.level <= DEPTH_MAX
    )


def _odd_gpus(requests: tuple[str, ...]) -> str:
    try:
        checked_gpus(requests or None)
    except InvalidError as error:
        return error.what
    return ""


def _odd_network(names: tuple[str, ...]) -> str:
    try:
        return "" if checked_names(names) == names else "its list of names is not in its plain form"
    except InvalidError as error:
        return error.what


def _refused(reason: str, error: Error, retry_after_us: int = 0) -> LeaseRefused:
    return LeaseRefused(reason, Failure.of(error), retry_after_us)
