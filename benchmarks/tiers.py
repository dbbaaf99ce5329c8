"""How like real nodes the simulator is: one plan in the simulator, by the node's own code on virtual time, and by real
processes in network namespaces of this machine. JSON; "apart" is where they disagree, beyond the bounds of
`potluck_netsim.tiers.outcome`.

"ratio" is the time of a call with real processes, divided by that in the simulator: near 1, where processors are free.
The third tier needs root, `ip` and `nft`, and on two cores two seconds for each node before the plan begins.
Run: python benchmarks/tiers.py [plan [lenders]]
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._common import report
from tests.e2e import nat, planned

from potluck_netsim.tiers import joined, simulated
from potluck_netsim.tiers.__main__ import plan_named
from potluck_netsim.tiers.outcome import CLOSE, WALL, Outcome, disagreements, table
from potluck_netsim.tiers.plan import Plan


def real(plan: Plan) -> Outcome:
    folder = Path(tempfile.mkdtemp(prefix="potluck-plan-"))
    # The sandboxes' user looks for its files.
    folder.chmod(0o755)
    try:
        return planned.run(plan, folder)
    finally:
        shutil.rmtree(folder)


def compared(plan: Plan) -> dict[str, Any]:
    outcomes = [simulated.run(plan), joined.run(plan)]
    apart = list(disagreements(plan, *outcomes, CLOSE))
    figures: dict[str, Any] = {"real": nat.why_not() or "there"}
    if not nat.why_not():
        outcomes.append(real(plan))
        apart += disagreements(plan, outcomes[0], outcomes[2], WALL)
        figures["ratio"] = {
            ours.name: round(theirs.took_s / ours.took_s, 2)
            for ours, theirs in zip(outcomes[0].fates, outcomes[2].fates, strict=True)
        }
    print(table(outcomes), file=sys.stderr)
    return figures | {"apart": apart, "outcomes": msgspec.to_builtins(outcomes)}


def main(name: str = "short", lenders: str = "0") -> None:
    report("tiers", compared(plan_named(name).widened(int(lenders))))


if __name__ == "__main__":
    main(*sys.argv[1:])
