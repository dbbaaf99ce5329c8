"""What verified journals show when they are looked at together. Pure.

Signs, not verdicts: what is found is named with its figures, for people to judge.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from potluck_ledger.entries import Dispute, Receipt
from potluck_ledger.exported import compare
from potluck_ledger.journal import VerifiedEntry

# A provider stands out that bills so many times what others do for an input of one function on one GPU model; of so
# many others at least, and after so many inputs.
OUTLIER_FACTOR, OTHERS_MIN, INPUTS_MIN = 3.0, 2, 5
# Two that give each other nearly the same, and little to others: more than so many microseconds, and so much of what
# both gave.
WASH_MIN_US, WASH_PERCENT = 600_000_000, 90


class Finding(NamedTuple):
    """`kind` is disagreement, outlier, wash or dispute."""

    kind: str
    text: str


Journals = Sequence[tuple[str, list[VerifiedEntry]]]


def audit(journals: Journals) -> list[Finding]:
    """All that there is to say of these, each given with its owner."""
    receipts = list(_receipts(journals))
    found = [*_disagreements(journals), *_outliers(receipts), *_washed(receipts), *_disputes(journals, receipts)]
    return sorted(set(found))


def _receipts(journals: Journals) -> Iterator[Receipt]:
    """Those that both signed, each once."""
    seen = set()
    for _, entries in journals:
        for entry in entries:
            if entry.receipt and entry.countersigned and entry.receipt.lease not in seen:
                seen.add(entry.receipt.lease)
                yield entry.receipt


def _disagreements(journals: Journals) -> Iterator[Finding]:
    for one, other in combinations(journals, 2):
        for text in compare(one, other):
            yield Finding("disagreement", text)


def _outliers(receipts: Sequence[Receipt]) -> Iterator[Finding]:
    """Time for one input, by provider, of each function (which names its image, too) on each GPU model."""
    sums: dict[tuple[str, str, str], dict[str, list[int]]] = {}
    for receipt in receipts:
        by_provider = sums.setdefault((receipt.function, receipt.gpu_model, receipt.label), {})
        pair = by_provider.setdefault(receipt.provider, [0, 0])
        pair[0] += receipt.lease_us
        pair[1] += receipt.inputs
    for (_, model, label), by_provider in sums.items():
        costs = {peer: us / inputs for peer, (us, inputs) in by_provider.items() if inputs >= INPUTS_MIN}
        for peer, cost in costs.items():
            others = [each for other, each in costs.items() if other != peer]
            usual = statistics.median(others) if len(others) >= OTHERS_MIN else 0
            if usual and cost > OUTLIER_FACTOR * usual:
                where = model or "no GPU"
                text = f"{peer} bills {cost / 1e6:.3f} s for an input of {label} ({where}); others {usual / 1e6:.3f} s"
                yield Finding("outlier", text)


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
