"""The tier without a sandbox. What isolates is not asked of it; that it runs, limits and ends work is."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import trio
from tests.conformance import check_sandbox as suite
from tests.conformance import check_sandbox_interrupt as interrupts
from tests.meshnode.sandbox import worlds

from potluck_node.sandbox import memory
from potluck_node.sandbox.interface import MARKER
from potluck_node.sandbox.process import ProcessLauncher

cloudpickle.register_pickle_by_value(sys.modules[__name__])

# What only a sandbox, or a group of every machine, limits.
NOT_HERE = (suite.check_scratch_limit, suite.check_process_limit)


@pytest.fixture
def opener(tmp_path: Path) -> suite.Opener:
    return worlds.opener_of(ProcessLauncher(), tmp_path, root=Path("/"), site=Path(cloudpickle.__file__).parents[1])


@pytest.mark.parametrize(
    "check", [c for c in [*suite.CHECKS, *interrupts.CHECKS] if c not in NOT_HERE], ids=lambda c: c.__name__
)
async def test_conformance(check: Any, opener: suite.Opener) -> None:
    await check(opener)


def inside_environment() -> dict[str, str]:
    return dict(os.environ)


async def test_it_does_not_call_itself_a_sandbox(opener: suite.Opener) -> None:
    async with suite.one_worker(opener) as (_, worker):
        assert MARKER not in (await suite.call(worker, inside_environment)).value


async def test_nothing_outlives_it(opener: suite.Opener) -> None:
    async with suite.one_worker(opener) as (zygote, worker):
        await suite.post(worker, time.sleep, 1000)
        pids = memory.descendants(zygote._box.pid)  # type: ignore[attr-defined]
        assert len(pids) > 1
    assert not await trio.to_thread.run_sync(living, pids)


def living(pids: list[int]) -> list[int]:
    """Those that run, of which a zombie that waits for its parent is none."""
    return [pid for pid in pids if memory.state(pid) not in ("", "Z")]


async def test_an_image_without_a_python_is_refused(tmp_path: Path) -> None:
    opener = worlds.opener_of(ProcessLauncher(), tmp_path, root=tmp_path, site=tmp_path)
    error = await suite.start_error(opener)
    assert "no Python" in error.what
    assert "local_python" in error.fix
