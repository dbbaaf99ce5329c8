"""What providers say of their speed, against what their receipts show. Pure.

Of one function on one class of machines, the time for an input and the score of whoever ran it give the same product
everywhere, if all scores are true. Whose product stands out from the others' claims too much, or too little.
"""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from potluck_ledger.audit import Finding, costs, stands_out
from potluck_ledger.entries import Receipt

# Provider → GPU model as receipts have it, "" for none → its score, in any unit that is the same for all.
Claims = Mapping[str, Mapping[str, int]]


class _Seen(NamedTuple):
    """One function of a provider: whether it stands out, and the median of the others' products over its own."""

    is_out: bool
    ratio: float


def misfits(claims: Claims, receipts: Sequence[Receipt]) -> list[Finding]:
    """Who stands out in more than half of the functions that can be compared, with the score that these speak for. To
    be comparable takes as many others with a score as in an audit (docs/decisions/audit.md)."""
    seen: defaultdict[tuple[str, str], list[_Seen]] = defaultdict(list)
    for models, _, by_provider in costs(receipts):
        model = _one(models)
        works = {peer: cost * score for peer, cost in by_provider.items() if (score := _score(claims, peer, model))}
        for peer, work in works.items():
            if found := _compared(work, [each for other, each in works.items() if other != peer]):
                seen[peer, model].append(found)
    named = (_finding(peer, model, claims[peer][model], each) for (peer, model), each in seen.items())
    return sorted(finding for finding in named if finding)


def median_of(claims: Claims, models: str) -> int:
    """What is usually claimed for a GPU model as a receipt has it ("2x NVIDIA A100": for one of them); 0 where nobody
    says."""
    model = _one(models)
    found = [score for peer in claims if (score := _score(claims, peer, model))]
    return round(statistics.median(found)) if found else 0


def _one(models: str) -> str:
    """ "2x NVIDIA A100" are compared with others that have two, by the score of one."""
    return re.sub(r"^\d+x ", "", models)


def _score(claims: Claims, peer: str, model: str) -> int:
    return max(0, claims.get(peer, {}).get(model, 0))


def _compared(work: float, others: Sequence[float]) -> _Seen | None:
    """None where there is nothing to compare with."""
    if work <= 0 or min(others, default=0) <= 0 or not (usual := stands_out(work, others)).known:
        return None
    is_slow = stands_out(1 / work, [1 / each for each in others]).found
    return _Seen(usual.found or is_slow, usual.median / work)


def _finding(peer: str, model: str, claimed: int, functions: Sequence[_Seen]) -> Finding | None:
    out = sum(each.is_out for each in functions)
    if out * 2 <= len(functions):
        return None
    shown = claimed * statistics.median(each.ratio for each in functions)
    of = f"{out} of {len(functions)} functions that can be compared"
    return Finding("claim", f"{peer} claims {claimed} for {model or 'its processor'}; {of} speak for {shown:.0f}")
