"""What a provider makes of quotas: who is refused, and in which words. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache

from potluck.errors import InvalidError, RefusedError
from potluck.gpus import gpu_matches, parse_gpu
from potluck.wire import Failure, FunctionSpec
from potluck.wire.lease import LeaseRefused
from potluck.wire.offer import GpuOffer
from potluck_ledger.entries import Rule
from potluck_ledger.quotas import CPU, Quotas, Standing, named
from potluck_ledger.report import labelled
from potluck_ledger.usage import What

# When somebody beyond their quota may ask again: an admin may have granted more, and that has come around.
RETRY_US = 10_000_000
# More lines than these nobody reads in an error.
LINES_MAX = 3
# Names of GPU models whose weight is remembered; peers choose them.
MODELS_MAX = 1000


def what_runs(spec: FunctionSpec, gpus: tuple[GpuOffer, ...]) -> What:
    """As its receipt will say, where its GPUs are of one model."""
    app = labelled(spec.app, spec.name).partition(".")[0]
    try:
        wanted = [parse_gpu(text) for text in spec.resources.gpu]
    except InvalidError:
        wanted = []
    fitting = (gpu.model for each in wanted for gpu in gpus if gpu_matches(each, gpu.model, gpu.memory_mib))
    return What(app, next(fitting, ""))


def weigher(weights: Mapping[str, float]) -> Callable[[str], int]:
    """What a second on a GPU model counts, in thousandths, by classes of models ("cpu" for none); the first that fits
    counts, and one where none does."""

    @lru_cache(MODELS_MAX)
    def weighs(model: str) -> int:
        fitting = (weight for name, weight in weights.items() if (is_of(name, model) if model else name == CPU))
        return round(next(fitting, 1.0) * 1000)

    return weighs


def is_of(gpu_class: str, model: str) -> bool:
    """Whether a receipt's GPU model ("2x NVIDIA A100-SXM4-80GB") is of a class ("A100"); the first of several
    counts."""
    name = re.sub(r"^\d+x ", "", model.split(", ")[0])
    try:
        return gpu_matches(parse_gpu(gpu_class), name, 0)
    except InvalidError:
        return False


def refusal(
    quotas: Quotas, node: str, caller: str, what: What, deficit_us: int, now_us: int, *, running: bool = False
) -> LeaseRefused | None:
    """None while a caller has something left, or is no further below zero than `deficit_us`; what runs may come to
    just there."""
    left_us = quotas.left_us(caller, what, now_us)
    if left_us > -deficit_us or (running and left_us == -deficit_us):
        return None
    standings = quotas.fitting(caller, what, now_us)
    error = RefusedError(
        f"{node} runs nothing more for this node now: its quota is used up."
        if standings
        else f"{node} runs nothing for this node: no admin of its lab has granted it time for this.",
        why="; ".join(list(named(standings))[:LINES_MAX]) or f"it used {-left_us / 1e6:.1f} s in the last week",
        fix=_fix(standings),
    )
    return LeaseRefused("quota", Failure.of(error), RETRY_US)


def reserved(node: str, rule: Rule, now_us: int) -> LeaseRefused:
    """An admin has reserved a machine for others."""
    until = f"{datetime.fromtimestamp(rule.expires_us / 1e6, UTC):%Y-%m-%d %H:%M} UTC"
    error = RefusedError(
        f"{node} is reserved for the {rule.scope} {rule.name[-24:]} until {until}.",
        fix="Calls go to other machines meanwhile, if there are any; `potluck mesh rules` shows all reservations.",
    )
    return LeaseRefused("reserved", Failure.of(error), min(RETRY_US, rule.expires_us - now_us))


def _fix(standings: list[Standing]) -> str:
    fix = "Ask an admin for a grant (`potluck ledger grant`)"
    renewed = [each.until_us for each in standings if each.until_us < each.grant.expires_us]
    if renewed:
        fix += f", or wait until {datetime.fromtimestamp(min(renewed) / 1e6, UTC):%Y-%m-%d %H:%M} UTC"
    return f"{fix}. `potluck ledger quota` shows what there is."
