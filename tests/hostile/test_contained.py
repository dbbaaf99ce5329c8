"""Programs that attack their surroundings, each in a sandbox of each tier: what they get, and that everybody else,
the host, the node and its other workers, goes on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.hostile.cases import CASES
from tests.hostile.decoys import Decoys
from tests.hostile.harness import GUARD, PROGRAMS, attacked, bystander, goes_on, told

from potluck_node.sandbox.bwrap import BwrapLauncher
from potluck_node.sandbox.cgroups import Cgroups
from potluck_node.sandbox.gvisor import GvisorLauncher

LAUNCHERS = {"bwrap": BwrapLauncher, "gvisor": GvisorLauncher}
# Programs with tests of their own (`test_messages`, `test_processor`).
ELSEWHERE = {"cpu_hog", "log_flood", "descriptor_smuggling"}
# Those that other means hold back where the machine hands out no control groups.
WITHOUT_GROUPS = ("fork_bomb", "thread_bomb", "memory_bomb", "memfd_bomb", "shared_memory_bomb")


@pytest.fixture(scope="module", params=LAUNCHERS)
def launcher(request: pytest.FixtureRequest) -> BwrapLauncher:
    if request.param == "gvisor" and shutil.which("runsc") is None:
        pytest.skip("gVisor's runsc is not installed")
    return LAUNCHERS[request.param]()


@pytest.fixture
def decoys() -> Iterator[Decoys]:
    made = Decoys()
    yield made
    made.close()


@pytest.mark.parametrize("name", CASES)
async def test_contained(name: str, launcher: BwrapLauncher, decoys: Decoys, tmp_path: Path) -> None:
    case = CASES[name]
    if case.needs and case.needs not in launcher.machine.groups.folders:
        pytest.skip(f"this machine hands out no control group for {case.needs}, which alone would hold it back")
    async with (
        bystander(launcher, tmp_path / "bystander") as works,
        attacked(name, case, launcher, tmp_path, decoys) as (zygote, worker, outcome),
    ):
        assert case.check(launcher.tier)(outcome), told(outcome)
        await works()
        assert decoys.untouched()
        await goes_on(zygote, worker, outcome)
        await works()


@pytest.mark.parametrize("name", WITHOUT_GROUPS)
async def test_contained_without_control_groups(
    name: str, launcher: BwrapLauncher, decoys: Decoys, tmp_path: Path
) -> None:
    bare = type(launcher)(groups=Cgroups({}, v2=False))
    async with (
        bystander(bare, tmp_path / "bystander") as works,
        attacked(name, CASES[name], bare, tmp_path, decoys) as (zygote, worker, outcome),
    ):
        assert CASES[name].check(launcher.tier)(outcome), told(outcome)
        await goes_on(zygote, worker, outcome)
        await works()


def test_every_program_is_tried_and_guarded() -> None:
    programs = {path.stem: path.read_text() for path in PROGRAMS.glob("*.py")}
    assert programs.keys() - {"tools"} == CASES.keys() | ELSEWHERE
    assert len(programs) > 40
    for source in programs.values():
        assert source.split('"""\n\n', 1)[1].startswith(GUARD)
