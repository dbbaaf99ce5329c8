"""The simulator is held to what real processes do: see `tests/netsim/test_tiers.py` for the node's own code."""

import pytest
from tests.e2e import nat, planned

from potluck_netsim.tiers import simulated
from potluck_netsim.tiers.outcome import WALL, disagreements, table
from potluck_netsim.tiers.plan import PLANS, read

pytestmark = pytest.mark.skipif(bool(nat.why_not()), reason=nat.why_not() or "there are namespaces")


def test_real_processes_do_what_the_simulator_says(tmp_path):
    plan = read(PLANS / "short.toml")
    outcomes = simulated.run(plan), planned.run(plan, tmp_path)
    assert list(disagreements(plan, *outcomes, WALL)) == [], table([*outcomes])
