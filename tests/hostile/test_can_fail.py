"""The tests of `test_contained` can fail: without one protection, in a sandbox that is whole otherwise, each program
gets through to the decoys."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.hostile.cases import CASES
from tests.hostile.decoys import Decoys
from tests.hostile.harness import attacked, told
from tests.hostile.weakened import WeakLauncher, Weakness

from potluck_node.sandbox.gvisor import GvisorLauncher

WEAKENED = {name: case for name, case in CASES.items() if isinstance(case.weakness, Weakness)}
# In gVisor a second thing holds these back: its kernel connects to no socket of the host's and knows no mount of the
# host's, and two hundred processes of Python take more memory than the sandbox has.
HELD_BY_GVISOR_TOO = {"host_sockets", "mount_table", "fork_bomb"}
IN_GVISOR = {name for name, case in WEAKENED.items() if case.weakness.any_tier} - HELD_BY_GVISOR_TOO
REASONS = {name: case.weakness for name, case in CASES.items() if isinstance(case.weakness, str)}


@pytest.fixture
def decoys() -> Iterator[Decoys]:
    made = Decoys()
    yield made
    made.close()


@pytest.mark.parametrize("name", WEAKENED)
async def test_it_gets_through_without(name: str, decoys: Decoys, tmp_path: Path) -> None:
    case = WEAKENED[name]
    assert isinstance(case.weakness, Weakness)
    launcher = WeakLauncher(case.weakness, decoys)
    for needed in {case.needs, case.weakness.needs} - {"", *launcher.machine.groups.folders}:
        pytest.skip(f"this machine hands out no control group for {needed}")
    async with attacked(name, case, launcher, tmp_path, decoys, case.weakness) as (_, _, outcome):
        assert case.got_through(outcome, launcher.tier), (case.weakness.lacks, told(outcome))


@pytest.mark.e2e
@pytest.mark.skipif(shutil.which("runsc") is None, reason="gVisor's runsc is not installed")
@pytest.mark.parametrize("name", sorted(IN_GVISOR))
async def test_it_gets_through_gvisor_without(name: str, decoys: Decoys, tmp_path: Path) -> None:
    """The protections that are the node's own, and not those of gVisor's kernel."""
    case = WEAKENED[name]
    assert isinstance(case.weakness, Weakness)
    launcher = GvisorLauncher()
    for needed in {case.needs, case.weakness.needs} - {"", *launcher.machine.groups.folders}:
        pytest.skip(f"this machine hands out no control group for {needed}")
    async with attacked(name, case, launcher, tmp_path, decoys, case.weakness) as (_, _, outcome):
        assert case.got_through(outcome, launcher.tier), (case.weakness.lacks, told(outcome))


def test_few_protections_are_never_taken_away() -> None:
    assert len(WEAKENED) >= 40
    assert all(len(reason) > len("As above") for reason in REASONS.values())
