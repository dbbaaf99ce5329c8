"""A program that uses all processors: its control group stops it in each period, and would not without its limit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.conformance import check_sandbox as suite
from tests.hostile.harness import LIMITS, PROGRAMS, bystander, inside_attack
from tests.hostile.test_contained import launcher
from tests.meshnode.sandbox import worlds

from potluck_node.sandbox.bwrap import BwrapLauncher
from potluck_node.sandbox.zygote import SocketZygote

__all__ = ["launcher"]

# Less of a processor than it gets on the busiest machine, and more than there is.
LITTLE, EVERYTHING = 100, 1_000_000


def periods_stopped(zygote: SocketZygote) -> int:
    """The kernel's own count: what the program got says little on a busy machine."""
    text = (zygote._box._group.folders["cpu"] / "cpu.stat").read_text()  # type: ignore[attr-defined]
    return int(dict(line.split() for line in text.splitlines())["nr_throttled"])


@pytest.mark.parametrize(
    ("cpu_milli", "contained"), [(LITTLE, True), (EVERYTHING, False)], ids=["limited", "unlimited"]
)
async def test_it_gets_its_share(cpu_milli: int, contained: bool, launcher: BwrapLauncher, tmp_path: Path) -> None:
    if "cpu" not in launcher.machine.groups.folders:
        pytest.skip("this machine hands out no control group for the processor, which alone would limit it")
    limits = replace(LIMITS, cpu_milli=cpu_milli)
    async with (
        bystander(launcher, tmp_path / "bystander") as works,
        suite.one_worker(worlds.opener_of(launcher, tmp_path), limits=limits) as (zygote, worker),
    ):
        before = periods_stopped(zygote)
        tools, source = ((PROGRAMS / f"{each}.py").read_text() for each in ("tools", "cpu_hog"))
        await suite.post(worker, inside_attack, tools, source, {})
        await works()
        assert (await suite.outcome_of(worker)).value > 0
        assert (periods_stopped(zygote) > before) == contained
        await suite.goes_on(zygote)
