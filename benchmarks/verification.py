"""What verification costs and catches. In the simulator, with the node's own cores: how many answers a provider that
forges a tenth of them gives until it is banned, and how much more work the others do for it. With real nodes: a map
with a quorum of two of three local providers, against the same map without, in turns.

Run: python benchmarks/verification.py [seeds] [rounds]
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._common import report
from tests.e2e import verify_sample
from tests.e2e.mesh import Mesh, Node, wait_until

from potluck.verify import CANARY_RATE
from potluck.wire.verify import Verification
from potluck_netsim.liars import ADAPTIVE, QUORUM, Found, Hunt, canaries

# Four providers: as many calls as make a thousand for each.
CALLS, INPUTS = 4_000, 48
WAYS: dict[str, Verification] = {
    "adaptive and canaries": canaries(round(1000 * CANARY_RATE)),
    "adaptive": ADAPTIVE,
    "quorum:2of3": QUORUM,
}


def main() -> None:
    """Print one JSON document."""
    seeds, rounds = (int(sys.argv[at]) if len(sys.argv) > at else default for at, default in ((1, 100), (2, 5)))
    report(
        "verification", {"seeds": seeds, "hunts": {name: _hunts(WAYS[name], seeds) for name in WAYS}, **_real(rounds)}
    )


def _hunts(rule: Verification, seeds: int) -> dict[str, Any]:
    """Of a mesh with four providers of which one forges a tenth of its answers, and of one without a liar."""
    calls = CALLS if rule.adaptive else CALLS // 4
    found = [Hunt(seed, rule).run(calls, stop_when_caught=True) for seed in range(seeds)]
    honest = [Hunt(seed, rule, lies=False).run(calls) for seed in range(max(1, seeds // 10))]
    return {
        "caught_percent": 100 * sum(each.caught for each in found) / seeds,
        "caught_within_1000_answers_percent": 100 * sum(each.caught and each.answers <= 1000 for each in found) / seeds,
        "answers_until_caught": _spread(found, "answers"),
        "calls_of_all_until_caught": _spread(found, "calls"),
        "forged_delivered": _spread(found, "forged"),
        "calls_without_a_liar": calls,
        "extra_work_without_a_liar_percent": statistics.median(each.extra_milli for each in honest) / 10,
    }


def _spread(found: list[Found], name: str) -> dict[str, float]:
    values = sorted(getattr(each, name) for each in found)
    p95 = values[min(len(values) - 1, int(len(values) * 0.95))]
    return {"median": statistics.median(values), "p95": p95, "max": values[-1]}


def _real(rounds: int) -> dict[str, Any]:
    """Seconds of a map over three local providers, with a quorum and without."""
    folder = Path(tempfile.mkdtemp(prefix="potluck-verify-"))
    folder.chmod(0o755)
    mesh = Mesh(folder)
    try:
        caller = mesh.caller()
        for name in ("ann", "bob", "dan"):
            mesh.provider(name)
        wait_until(lambda: len(caller.status().peers) == 3, "finding the providers")
        return {"real": _maps(caller, rounds)}
    finally:
        mesh.stop()


def _maps(caller: Node, rounds: int) -> dict[str, Any]:
    os.environ["POTLUCK_HOME"] = str(caller.home)
    checked, plain = verify_sample.paced, verify_sample.paced.with_options(verify="none")
    taken: dict[str, list[float]] = {"quorum_s": [], "none_s": []}
    with verify_sample.app.run(show_progress=False):
        for number in range(rounds + 1):
            for name, function in (("quorum_s", checked), ("none_s", plain)):
                began = time.perf_counter()
                assert list(function.map(range(INPUTS))) == list(range(INPUTS))
                if number:
                    # The first starts workers.
                    taken[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    return {
        "providers": 3,
        "inputs": INPUTS,
        "input_ms": 1000 * verify_sample.PACE_S,
        **{name: round(value, 3) for name, value in medians.items()},
        "quorum_over_none": round(medians["quorum_s"] / medians["none_s"], 2),
    }


if __name__ == "__main__":
    main()
