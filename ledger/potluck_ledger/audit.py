"""What verified journals show when they are looked at together. Pure.

Signs, not verdicts: what is found is named with its figures, for people to judge.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from types import MappingProxyType
from typing import NamedTuple

from potluck_ledger.entries import Dispute, Receipt
from potluck_ledger.exported import compare
from potluck_ledger.journal import VerifiedEntry

# A provider stands out that bills so many times what others do for an input of one function on one GPU model; of so
# many others at least, and after so many inputs.
OUTLIER_FACTOR, OTHERS_MIN, INPUTS_MIN = 3.0, 2, 5
# Where there are so many others: one whose modified z-score 0.6745 (x - median) / MAD is above 3.5 (Iglewicz and
# Hoaglin, "How to Detect and Handle Outliers", 1993), and who bills half as much again as the median: others may be
# much alike.
SPREAD_OTHERS_MIN, Z_MAX, SPREAD_FACTOR = 5, 3.5, 1.5
# Two that give each other nearly the same, and little to others: more than so many microseconds, and so much of what
# both gave.
WASH_MIN_US, WASH_PERCENT = 600_000_000, 90
# Larger rings than this are a mesh.
RING_MAX = 8


class Finding(NamedTuple):
    """`kind` is disagreement, double, outlier, wash, dispute, claim (`claims`), or of what is shown fork, withheld."""

    kind: str
    text: str


Journals = Sequence[tuple[str, list[VerifiedEntry]]]
# Owners of whose journals there are only the entries about one peer, and which.
Parts = Mapping[str, str]
NO_PARTS: Parts = MappingProxyType({})


def audit(journals: Journals, parts: Parts = NO_PARTS) -> list[Finding]:
    """All that there is to say of these, each given with its owner. Of those in `parts` nothing is said that what they
    do not show could answer."""
    receipts = list(agreed(journals))
    shown = [each for each in receipts if not {each.provider, each.caller} & parts.keys()]
    found = [*_disagreements(journals, parts), *_doubled(journals), *outliers(receipts)]
    found += [*_washed(shown), *_rings(shown), *_disputes(journals, receipts)]
    return sorted(set(found))


def agreed(journals: Journals) -> Iterator[Receipt]:
    """Those that both signed, each once."""
    seen = set()
    for _, entries in journals:
        for entry in entries:
            if entry.receipt and entry.countersigned and (key := _lease(entry.receipt)) not in seen:
                seen.add(key)
                yield entry.receipt


def _lease(receipt: Receipt) -> tuple[str, str, str]:
    """Two callers may name their leases alike."""
    return receipt.caller, receipt.provider, receipt.lease


def _doubled(journals: Journals) -> Iterator[Finding]:
    """Leases with several receipts that both signed: a caller signs one."""
    bodies: defaultdict[tuple[str, str, str], set[bytes]] = defaultdict(set)
    for _, entries in journals:
        for entry in entries:
            if entry.receipt and entry.countersigned:
                bodies[_lease(entry.receipt)].add(entry.envelope.body)
    for (caller, provider, lease), found in bodies.items():
        if len(found) > 1:
            yield Finding("double", f"lease {lease}: {provider} and {caller} signed {len(found)} receipts; one counts")


def _disagreements(journals: Journals, parts: Parts) -> Iterator[Finding]:
    between = {owner: _by_other(owner, entries) for owner, entries in journals}
    for (one, _), (other, _) in combinations(journals, 2):
        if (parts.get(one, other), parts.get(other, one)) != (other, one):
            continue
        for text in compare((one, between[one][other]), (other, between[other][one])):
            yield Finding("disagreement", text)


def _by_other(owner: str, entries: Sequence[VerifiedEntry]) -> defaultdict[str, list[VerifiedEntry]]:
    """Those with receipts, by whom they are with: a crawl compares many journals, each with each."""
    found: defaultdict[str, list[VerifiedEntry]] = defaultdict(list)
    for entry in entries:
        if entry.receipt:
            found[entry.receipt.caller if entry.receipt.provider == owner else entry.receipt.provider].append(entry)
    return found


def costs(receipts: Iterable[Receipt]) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Of each function (which names its image, too) on each GPU model: the model, the function's label, and what an
    input took by provider, microseconds; of providers with so many inputs that this says something."""
    sums: dict[tuple[str, str, str], dict[str, list[int]]] = {}
    for receipt in {_lease(receipt): receipt for receipt in receipts}.values():
        by_provider = sums.setdefault((receipt.function, receipt.gpu_model, receipt.label), {})
        pair = by_provider.setdefault(receipt.provider, [0, 0])
        pair[0] += receipt.lease_us
        pair[1] += receipt.inputs
    for (_, model, label), by_provider in sums.items():
        yield model, label, {peer: us / inputs for peer, (us, inputs) in by_provider.items() if inputs >= INPUTS_MIN}


def outliers(receipts: Iterable[Receipt]) -> Iterator[Finding]:
    """Who bills more time than others for one input of a function (which names its image, too) on one GPU model, by
    receipts that both signed; each lease counts once."""
    for model, label, by_provider in costs(receipts):
        for peer, cost in by_provider.items():
            look = stands_out(cost, [each for other, each in by_provider.items() if other != peer])
            if look.found:
                where, usual_s = model or "no GPU", look.median / 1e6
                text = f"{peer} bills {cost / 1e6:.3f} s for an input of {label} ({where}); others {usual_s:.3f} s"
                yield Finding("outlier", text)


class Look(NamedTuple):
    """Whether a figure stands out above those of others, whose median this is. `known` is false where there are too few
    of them to say."""

    known: bool
    found: bool
    median: float


def stands_out(figure: float, others: Sequence[float]) -> Look:
    """By the formula of docs/decisions/audit.md."""
    usual = statistics.median(others) if len(others) >= OTHERS_MIN else 0.0
    if not usual:
        return Look(False, False, 0.0)
    if len(others) < SPREAD_OTHERS_MIN:
        return Look(True, figure > OUTLIER_FACTOR * usual, usual)
    spread = statistics.median(abs(each - usual) for each in others)
    is_far = figure > SPREAD_FACTOR * usual and 0.6745 * (figure - usual) > Z_MAX * spread
    return Look(True, is_far, usual)


def _rings(receipts: Sequence[Receipt]) -> Iterator[Finding]:
    """Three or more that give to each other in a circle, as much as they get, and little to others."""
    given: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for receipt in receipts:
        given[receipt.provider][receipt.caller] += receipt.lease_us
    everybody = {*given, *(receipt.caller for receipt in receipts)}
    for ring in {_circle(peer, given) for peer in list(given)}:
        # All there are is no ring: a mesh of a lab's own machines looks like that.
        if 2 < len(ring) <= RING_MAX and len(ring) < len(everybody) and _is_closed(ring, given):
            total_s = sum(given[one][other] for one in ring for other in ring) / 1e6
            yield Finding("wash", f"{', '.join(sorted(ring))} gave each other {total_s:.0f} s, and others little")


def _circle(peer: str, given: dict[str, defaultdict[str, int]]) -> frozenset[str]:
    """Whom `peer` gives much to, directly or through others, and gets from again."""
    there = _reached(peer, lambda one: [other for other, us in given[one].items() if us >= WASH_MIN_US])
    back = _reached(peer, lambda one: [other for other in list(given) if given[other][one] >= WASH_MIN_US])
    return frozenset(there & back)


def _reached(start: str, following: Callable[[str], list[str]]) -> set[str]:
    found, todo = {start}, [start]
    while todo:
        news = set(following(todo.pop())) - found
        found |= news
        todo += sorted(news)
    return found


def _is_closed(ring: frozenset[str], given: dict[str, defaultdict[str, int]]) -> bool:
    for one in ring:
        gave_us, got_us = sum(given[one][other] for other in ring), sum(given[other][one] for other in ring)
        small_us, large_us = sorted((gave_us, got_us))
        if small_us * 100 < large_us * WASH_PERCENT:
            return False
    inside_us = sum(given[one][other] for one in ring for other in ring)
    return inside_us * 100 >= sum(sum(given[one].values()) for one in ring) * WASH_PERCENT


def _washed(receipts: Sequence[Receipt]) -> Iterator[Finding]:
    """Pairs that seem to work for each other alone, which makes both look as if they gave much."""
    given: defaultdict[tuple[str, str], int] = defaultdict(int)
    for receipt in receipts:
        given[receipt.provider, receipt.caller] += receipt.lease_us
    totals: defaultdict[str, int] = defaultdict(int)
    for (giver, _), us in given.items():
        totals[giver] += us
    for one, other in sorted(pair for pair in given if pair[0] < pair[1]):
        there_us, back_us = given[one, other], given.get((other, one), 0)
        small_us, large_us = sorted((there_us, back_us))
        alike = small_us * 100 >= large_us * WASH_PERCENT
        alone = (there_us + back_us) * 100 >= (totals[one] + totals[other]) * WASH_PERCENT
        if small_us >= WASH_MIN_US and alike and alone:
            text = (
                f"{one} and {other} gave each other {there_us / 1e6:.0f} s and {back_us / 1e6:.0f} s, and others little"
            )
            yield Finding("wash", text)


def _disputes(journals: Journals, receipts: Sequence[Receipt]) -> Iterator[Finding]:
    """Of leases for which there is no receipt of both."""
    settled = {receipt.lease for receipt in receipts}
    for _, entries in journals:
        for entry in entries:
            dispute = entry.content
            if isinstance(dispute, Dispute) and dispute.lease not in settled:
                claimed_s, signed_s = dispute.claimed_us / 1e6, dispute.signed_us / 1e6
                text = (
                    f"lease {dispute.lease}: {dispute.by} says to {dispute.against} that {claimed_s:.3f} s were used; "
                    f"{signed_s:.3f} s are signed"
                )
                yield Finding("dispute", f"{text} ({dispute.reason})")
