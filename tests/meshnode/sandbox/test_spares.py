from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.conformance import check_sandbox as suite
from tests.meshnode.sandbox import host_image

from potluck_node.sandbox import spares as spares_module
from potluck_node.sandbox.bwrap import BwrapLauncher
from potluck_node.sandbox.interface import Limits, SandboxSpec, Zygote
from potluck_node.sandbox.spares import Spares


@pytest.fixture(scope="module")
def launcher() -> BwrapLauncher:
    return BwrapLauncher()


@pytest.fixture
def make_spec(tmp_path: Path) -> Callable[..., SandboxSpec]:
    root, binds = host_image.build(tmp_path)

    def make(**fields: Any) -> SandboxSpec:
        env = {"PYTHONPATH": host_image.SITE}
        plain: dict[str, Any] = {"owner": "cas", "env": env, "function": suite.function_spec()}
        return SandboxSpec(root=root, binds=binds, python=host_image.PYTHON, **plain | fields)

    return make


@asynccontextmanager
async def serving(launcher: BwrapLauncher) -> AsyncIterator[Spares]:
    with trio.fail_after(suite.CHECK_TIMEOUT_S):
        async with trio.open_nursery() as nursery:
            spares = Spares(launcher)
            await nursery.start(spares.serve)
            yield spares
            nursery.cancel_scope.cancel()


async def spare_pid(spares: Spares) -> int:
    """The first process of the spare, once there is one."""
    while spares._spare is None:
        await trio.sleep(0.01)
    return spares._spare.zygote.host_pid


@asynccontextmanager
async def started(spares: Spares, spec: SandboxSpec) -> AsyncIterator[Zygote]:
    async with trio.open_nursery() as nursery:
        zygote = await spares.start(nursery, spec)
        yield zygote
        await zygote.aclose()
        nursery.cancel_scope.cancel()


async def test_the_next_start_of_the_same_kind_takes_the_spare(launcher: BwrapLauncher, make_spec: Any) -> None:
    async with serving(launcher) as spares, started(spares, make_spec()):
        spare = await spare_pid(spares)
        other = suite.function_spec(suite.inside_double)
        async with started(spares, make_spec(function=other)) as second:
            assert second.host_pid == spare
            worker = await suite.worker_of(second)
            assert (await suite.call(worker, 21)).value == 42  # type: ignore[arg-type]  # its function doubles
            assert await spare_pid(spares) != spare


@pytest.mark.parametrize(
    "change",
    [{"owner": "bob"}, {"limits": Limits(memory_mib=600)}, {"env": {"PYTHONPATH": host_image.SITE, "A": "1"}}],
    ids=["caller", "limits", "environment"],
)
async def test_nobody_gets_a_spare_of_another_kind(launcher: BwrapLauncher, make_spec: Any, change: Any) -> None:
    async with serving(launcher) as spares, started(spares, make_spec()):
        spare = await spare_pid(spares)
        async with started(spares, make_spec(**change)) as second:
            assert second.host_pid != spare


async def test_a_spare_of_an_image_that_was_made_anew_is_not_used(
    launcher: BwrapLauncher, make_spec: Any, tmp_path: Path
) -> None:
    spec = make_spec()
    async with serving(launcher) as spares, started(spares, spec):
        spare = await spare_pid(spares)
        spec.root.rename(tmp_path / "old")
        host_image.build(tmp_path)
        async with started(spares, spec) as second:
            assert second.host_pid != spare


async def test_a_spare_that_died_is_not_used(launcher: BwrapLauncher, make_spec: Any) -> None:
    async with serving(launcher) as spares, started(spares, make_spec()):
        await spare_pid(spares)
        assert spares._spare
        await spares._spare.zygote.aclose()
        async with started(spares, make_spec()) as second:
            await suite.goes_on(second)


async def test_spares_end_with_their_time_and_with_the_node(
    launcher: BwrapLauncher, make_spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spares_module, "SPARE_S", 0.3)
    async with serving(launcher) as spares:
        async with started(spares, make_spec()):
            await spare_pid(spares)
            assert spares._spare
            first = spares._spare.zygote
            assert await first.wait_ended() == "closed"
        monkeypatch.undo()
        async with started(spares, make_spec()):
            await spare_pid(spares)
            assert spares._spare
            last = spares._spare.zygote
    assert await last.wait_ended() == "closed"


async def test_without_an_owner_there_is_no_spare(launcher: BwrapLauncher, make_spec: Any) -> None:
    async with serving(launcher) as spares, started(spares, make_spec(owner="")) as zygote:
        await suite.goes_on(zygote)
        assert spares._spare is None
