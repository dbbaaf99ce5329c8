"""A day of the owner's policy: each decision compared with an oracle that keeps no state. JSON.

Run: python benchmarks/policy.py [changes [compared]]
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._common import report
from tests.meshnode.core.test_policy import STRICT, fact_changes, wrong_decisions

from potluck_node.core.policy import PolicyCore


def main(changes: int = 100_000, compared: int = 100_000) -> None:
    wrong, looked_at = wrong_decisions(changes, seed=7, every=max(1, changes // compared))
    core, history = PolicyCore(STRICT), list(fact_changes(random.Random(7), min(changes, 10_000)))
    start = time.perf_counter()
    for now_us, facts in history:
        core.see(facts, now_us)
    each_us = (time.perf_counter() - start) / len(history) * 1e6
    report(
        "policy",
        {"hours": 24, "changes": changes, "compared": looked_at, "wrong": wrong, "decision_us": round(each_us, 1)},
    )


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
