from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.conformance import check_sandbox as suite
from tests.conformance import check_sandbox_interrupt as interrupts
from tests.conformance import check_sandbox_isolation as isolation
from tests.conformance import check_sandbox_overlay as overlays
from tests.conformance import check_sandbox_volumes as volumes
from tests.meshnode.sandbox import worlds

from potluck_node.sandbox.gvisor import GvisorLauncher
from potluck_node.sandbox.interface import Limits

pytestmark = pytest.mark.skipif(shutil.which("runsc") is None, reason="runsc is not installed")


@pytest.fixture(scope="module")
def launcher() -> GvisorLauncher:
    return GvisorLauncher()


@pytest.fixture
def opener(launcher: GvisorLauncher, tmp_path: Path) -> suite.Opener:
    return worlds.opener_of(launcher, tmp_path)


@pytest.mark.parametrize(
    "check", [*suite.CHECKS, *interrupts.CHECKS, *isolation.CHECKS], ids=lambda check: check.__name__
)
async def test_conformance(check: Any, opener: suite.Opener) -> None:
    await check(opener)


@pytest.mark.parametrize("check", volumes.CHECKS, ids=lambda check: check.__name__)
async def test_volumes(check: Any, opener: suite.Opener, tmp_path: Path) -> None:
    for place in (volumes.WRITABLE, volumes.READABLE):
        (tmp_path / "root" / place.strip("/")).mkdir()
    await check(opener, tmp_path)


@pytest.mark.parametrize("check", overlays.CHECKS, ids=lambda check: check.__name__)
async def test_overlays(check: Any, opener: suite.Opener, tmp_path: Path) -> None:
    await check(opener, tmp_path)


async def test_memory_limit_ends_the_sandbox(opener: suite.Opener) -> None:
    async with suite.one_worker(opener, limits=Limits(memory_mib=160)) as (zygote, worker):
        assert (await suite.call(worker, suite.inside_eat, 20)).value == 20
        await suite.post(worker, suite.inside_eat, 1000)
        assert "out of memory: limit 160 MiB" in (await suite.end_of(worker)).reason
        assert "out of memory" in await zygote.wait_ended()
