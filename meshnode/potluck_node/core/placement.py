"""Placement: which peer gets a lease. Pure; the dice are handed in.

Order: fits → not known for lies → warm worker → known for good → image present → round trip → load. Offers can say
anything, so who has proved itself goes before who only says that it has what is needed; once in ten times that is left
out, or newcomers would never prove themselves. Among near-equals two are drawn and the less loaded one wins (the power
of two choices, Mitzenmacher 2001), so that callers do not all rush to the same best peer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from potluck.errors import NoPeerError
from potluck.gpus import GpuRequest, gpu_matches, parse_gpu
from potluck.network import not_lent
from potluck.tiers import at_least
from potluck.wire import FunctionSpec, Resources
from potluck.wire.offer import FREE, OFFER_GPUS_MAX, PASSING, GpuOffer, Offer

# Round trips within the same bucket count as equal: 0-2 ms LAN, -20 ms metro, -80 ms continent, more.
_RTT_BUCKETS_US = (2_000, 20_000, 80_000)

# One placement in so many goes by offers alone, though somebody has proved to be good.
EXPLORE_EVERY = 10


class Dice(Protocol):
    """The part of `random.Random` that placement needs."""

    def randrange(self, stop: int, /) -> int: ...


# Whether a peer is trusted, by its id.
Trusts = Callable[[str], bool]


def misfit(offer: Offer, spec: FunctionSpec, trusts: Trusts = lambda peer: True, *, python_machine: str = "") -> str:
    """Why this offer can never run the function, or "" when it can (perhaps later)."""
    if (spec.secrets or spec.volumes) and not trusts(offer.peer):
        return f"is not trusted with the function's {'secrets' if spec.secrets else 'volumes'}"
    resources = spec.resources
    if python_machine and offer.machine != python_machine:
        return f"is a {offer.machine} machine"
    if spec.tier and at_least(offer.tiers, spec.tier) is None:
        return f"has no {spec.tier} sandbox"
    if lacking := not_lent(offer.network, spec.network):
        return lacking
    if spec.region and not any(_within(offer.region, region) for region in spec.region):
        return f"is in {offer.region}" if offer.region else "does not say where it is"
    if missing := [f"{key}={value}" for key, value in spec.labels if (key, value) not in offer.labels]:
        return f"has no label {missing[0]}"
    if resources.gpu and not any(_has_gpus(offer, parse_gpu(wanted)) for wanted in resources.gpu):
        owned = ", ".join(_gpu_words(gpu) for gpu in offer.gpus) or "no GPU"
        return f"has {owned}"
    if offer.cpu_milli < resources.cpu_milli:
        return f"lends {offer.cpu_milli / 1000:g} CPUs"
    if offer.memory_mib < resources.memory_mib:
        return f"lends {offer.memory_mib} MiB of memory"
    return ""


def _within(place: str, region: str) -> bool:
    """Whether `place` is `region` or a part of it: "eu-west" is in "eu"."""
    return place == region or place.startswith(f"{region}-")


def _has_gpus(offer: Offer, wanted: GpuRequest) -> bool:
    return _count_gpus(offer, wanted, PASSING) >= wanted.amount


def _count_gpus(offer: Offer, wanted: GpuRequest, states: tuple[str, ...]) -> int:
    return sum(
        gpu.state.startswith(states)
        and gpu_matches(wanted, gpu.model, gpu.memory_mib)
        and (gpu.shares or not wanted.share)
        for gpu in offer.gpus[:OFFER_GPUS_MAX]
    )


def _gpu_words(gpu: GpuOffer) -> str:
    return gpu.model if gpu.state.startswith(PASSING) else f"{gpu.model} ({gpu.state})"


def slots(offer: Offer, resources: Resources) -> int:
    """How many workers of this size the offer says could start now."""
    by_cpu = offer.cpu_free_milli // max(1, resources.cpu_milli)
    by_memory = offer.memory_free_mib // max(1, resources.memory_mib)
    room = max(0, min(by_cpu, by_memory))
    if not resources.gpu:
        return room
    wanted = [parse_gpu(text) for text in resources.gpu]
    return min(room, max(_count_gpus(offer, each, (FREE,)) // each.amount for each in wanted))


@dataclass(frozen=True)
class Candidate:
    """An offer with what we know of the peer ourselves: it is `recent` when it was among the last to run this function;
    `doubt` is 0 for one whose results held, 1 when nothing is known, 2 for one that was wrong lately
    (`core.reputation`)."""

    offer: Offer
    rtt_us: int = 0
    banned: bool = False
    recent: bool = False
    doubt: int = 0


def _rank(
    candidate: Candidate, function: str, image: str, resources: Resources, explores: bool
) -> tuple[int, ...]:  # fmt: skip
    offer = candidate.offer
    bucket = sum(candidate.rtt_us > edge for edge in _RTT_BUCKETS_US)
    warm = function in offer.warm
    return (
        candidate.banned,
        candidate.doubt > 1,
        not warm and slots(offer, resources) == 0,
        not (warm or candidate.recent),
        0 if explores else candidate.doubt,
        image not in offer.images,
        bucket,
        candidate.doubt,
    )


def choose(
    candidates: Iterable[Candidate], function: str, spec: FunctionSpec, dice: Dice, trusts: Trusts = lambda peer: True
) -> Candidate | None:
    """The peer to ask next, or None when nobody open fits. Bans only order: if all are banned, bans are ignored."""
    fitting = [each for each in candidates if each.offer.state == "open" and not misfit(each.offer, spec, trusts)]
    if not fitting:
        return None
    explores = len({each.doubt for each in fitting}) > 1 and dice.randrange(EXPLORE_EVERY) == 0
    ranks = [_rank(each, function, spec.image, spec.resources, explores) for each in fitting]
    best = min(ranks)
    equals = [each for each, rank in zip(fitting, ranks, strict=True) if rank == best]
    first, second = equals[dice.randrange(len(equals))], equals[dice.randrange(len(equals))]
    return max(first, second, key=lambda each: slots(each.offer, spec.resources))


def no_peer(
    spec: FunctionSpec, offers: Iterable[Offer], notes: Iterable[str] = (), trusts: Trusts = lambda peer: True
) -> NoPeerError:
    """The error that says what is missing and who is nearest."""
    wants = describe(spec.resources) + (f", a {spec.tier} sandbox" if spec.tier else "")
    wants += f", the network ({', '.join(spec.network)})" if spec.network else ""
    wants += f", in {' or '.join(spec.region)}" if spec.region else ""
    wants += "".join(f", {key}={value}" for key, value in spec.labels)
    offers = list(offers)
    near = [f"{offer.name} {misfit(offer, spec, trusts) or 'is ' + offer.state}" for offer in offers[:5]]
    why = "; ".join([*near, *notes]) or "no peer on this mesh offers anything"
    fix = "Ask for less, or bring a peer that has it: on that machine run `potluck up`."
    if any((spec.secrets or spec.volumes) and not trusts(offer.peer) for offer in offers):
        what = "secrets" if spec.secrets else "volumes"
        fix = f"Name peers that may have its {what} in the setting `trust` of this node; its own machine always may."
    if not offers:
        fix = "Check `potluck status`; on a machine that should help, run `potluck up` and give it this node's address."
    return NoPeerError(f"No peer has what {spec.name} asks for: {wants}.", why=why, fix=fix)


def describe(resources: Resources) -> str:
    """Resources in words: "1 A10G, 2 CPUs, 512 MiB"."""
    gpus = " or ".join(_request_words(gpu) for gpu in resources.gpu)
    cpus = resources.cpu_milli / 1000
    rest = f"{cpus:g} CPU{'s' if cpus != 1 else ''}, {resources.memory_mib} MiB"
    return f"{gpus}, {rest}" if gpus else rest


def _request_words(text: str) -> str:
    """A request in words: "2 H100 with at least 40GB"."""
    wanted = parse_gpu(text)
    size = text.rpartition(":")[2].removeprefix(">=").strip()
    model = text.split(":")[0]
    name = "GPU of any kind" if wanted.model == "any" else model
    if not wanted.memory_mib:
        return f"{wanted.amount} {name}"
    return f"{size} of 1 {name}" if wanted.share else f"{wanted.amount} {name} with at least {size}"
