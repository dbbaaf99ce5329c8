"""Why a call waits, and where it would run: words for `potluck status --calls` and for whoever waits. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from potluck.wire.offer import Offer
from potluck_node.core.bans import Bans
from potluck_node.core.demand import Function, Lease
from potluck_node.core.placement import Trusts, describe, misfit, slots


def state(
    function: Function, leases: Sequence[Lease], offers: Callable[[], Sequence[Offer]], trusts: Trusts
) -> tuple[str, str]:
    """(queued, placed, leased or running; what is waited for)."""
    stages = [lease.stage for lease in leases if lease.stage]
    if any(lease.inputs and not lease.stage for lease in leases):
        peers = len({lease.peer for lease in leases if lease.inputs})
        used_s = function.used_us // 1_000_000
        used = f", {used_s} s of workers used" if used_s else ""
        return "running", f"running on {peers} peer{'s' if peers != 1 else ''}{used}"
    if stages:
        return ("leased" if any(lease.slots for lease in leases) else "placed"), "; ".join(stages)
    if not function.queue and not function.delayed:
        return "running", ""
    return "queued", _waiting(function, offers(), trusts)


def _waiting(function: Function, offers: Sequence[Offer], trusts: Trusts) -> str:
    wanted = describe(function.spec.resources)
    having = [offer for offer in offers if not misfit(offer, function.spec, trusts)]
    if function.delayed and not function.queue:
        return "waiting to retry"
    if not having:
        return f"waiting for {wanted}; no peer known has it yet"
    text = f"waiting for {wanted}; {len(having)} peer{'s have' if len(having) != 1 else ' has'} it, "
    if function.too_large:
        return f"{text}none to whom {function.too_large >> 20} MiB get: through a relay less pass"
    lost = [offer for offer in having if offer.peer in function.unreached]
    if not lost:
        return text + "none free"
    why = _unreached(function, lost[0])
    if len(lost) == len(having):
        return f"{text}{'and it cannot' if len(lost) == 1 else 'none of which can'} be reached: {why}"
    return f"{text}no other is free, and {len(lost)} cannot be reached: {why}"


def asking(function: Function, offer: Offer) -> str:
    """For a lease that is being opened."""
    if offer.peer not in function.unreached:
        return f"asking {offer.name}"
    return f"asking {offer.name} again, which could not be reached: {_unreached(function, offer)}"


def _unreached(function: Function, offer: Offer) -> str:
    return f"{function.unreached[offer.peer][1]}; see `potluck doctor`"


def would(
    function: Function, leases: Mapping[str, Lease], offers: Sequence[Offer], bans: Bans, rtt_us: Mapping[str, int],
    now_us: int, trusts: Trusts,
) -> tuple[str, ...]:  # fmt: skip
    """One line for each peer that is known, those that run something first."""
    held = {leases[name].peer: leases[name] for name in sorted(function.leases)}
    lines = [
        (peer_rank, f"{offer.name}: {text}")
        for offer in offers
        for peer_rank, text in [_line(function, offer, held.get(offer.peer), bans, rtt_us, now_us, trusts)]
    ]
    return tuple(text for _, text in sorted(lines))


def _line(
    function: Function,
    offer: Offer,
    lease: Lease | None,
    bans: Bans,
    rtt_us: Mapping[str, int],
    now_us: int,
    trusts: Trusts,
) -> tuple[int, str]:
    if lease is not None:
        return 0, _leased(lease)
    if why := misfit(offer, function.spec, trusts):
        return 4, f"cannot run it: it {why}"
    if offer.peer in function.verdicts:
        return 4, f"says that it would fail: {function.verdicts[offer.peer].what}"
    if offer.state != "open":
        return 3, f"is {offer.state}"
    until_us, why = function.not_before.get(offer.peer, (0, ""))
    if until_us > now_us:
        return 2, f"is asked again in {_seconds(until_us - now_us)}: {why}"
    if left_us := bans.left_us(offer.peer, now_us):
        return 2, f"is avoided for {_seconds(left_us)}: it failed {bans.strikes(offer.peer)} times in a row"
    return 1, "would be asked next" + _merits(function, offer, rtt_us)


def _leased(lease: Lease) -> str:
    if not lease.slots:
        return lease.stage or "is being asked"
    running = sum(bool(sent.began_us) for sent in lease.inputs.values())
    return lease.stage or f"runs {running} of {lease.slots} at once, {len(lease.inputs) - running} sent ahead"


def _merits(function: Function, offer: Offer, rtt_us: Mapping[str, int]) -> str:
    merits = ["a warm worker"] if function.name in offer.warm else []
    merits += ["the image"] if function.spec.image in offer.images else []
    room = slots(offer, function.spec.resources)
    merits.append(f"room for {room}" if room else "no room now")
    if offer.peer in rtt_us:
        merits.append(f"{rtt_us[offer.peer] / 1000:.1f} ms away")
    return f"; it has {', '.join(merits)}"


def _seconds(time_us: int) -> str:
    return f"{max(1, round(time_us / 1e6))} s"
