"""`check_apps` on both databases, restarts, and the key of what is deployed."""

from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from tests.conformance import check_apps
from tests.conformance.check_apps import Node, Pair, Played, deploy, known, rolling, states, version
from tests.meshnode.clocks import HandClock

from potluck.errors import ExecutionError, RefusedError
from potluck.wire import Scaling, function_id
from potluck_ledger.keys import PrivateKey
from potluck_node.core import events as ev
from potluck_node.core.rollover import WARM_US_MAX
from potluck_node.deployments import Deployments
from potluck_node.state.app_key import AppKey
from potluck_node.state.service import State

GIB = 1 << 30
ONE, TWO = PrivateKey(b"1" * 32), PrivateKey(b"2" * 32)


@asynccontextmanager
async def served(place, key, clock, trusts=lambda peer: True):
    """One node; ends as if it were killed."""
    state, workers = State(place, key.peer, clock, GIB), Played()
    deployments = Deployments(state, AppKey(key, trusts), key.peer, workers, clock)
    async with trio.open_nursery() as nursery:
        await nursery.start(state.serve)
        await nursery.start(deployments.serve)
        yield Node(deployments, workers)
        nursery.cancel_scope.cancel()
    state.close()


@pytest.fixture(params=["sqlite", "postgres"])
def world(request, tmp_path):
    @asynccontextmanager
    async def make():
        clock = HandClock()
        async with AsyncExitStack() as stack:
            if request.param == "sqlite":
                one = two = await stack.enter_async_context(served(tmp_path / "state.sqlite", ONE, clock))
            else:
                url = request.getfixturevalue("postgres").fresh()
                one, two = [await stack.enter_async_context(served(url, key, clock)) for key in (ONE, TWO)]
                while two.deployments._key.vault is None:
                    await trio.sleep(0.01)
            yield Pair(one, two, clock)

    return make


@pytest.mark.parametrize("check", check_apps.CHECKS, ids=lambda check: check.__name__)
async def test_it_keeps_its_promises(check, world):
    await check(world)


async def test_a_node_that_ends_while_a_version_is_on_its_way_begins_with_the_one_before(tmp_path):
    place, clock = tmp_path / "state.sqlite", HandClock()
    async with served(place, ONE, clock) as node:
        await deploy(node, 1, scaling=Scaling(min_containers=1))
        node.workers.stands_by = {function_id(version(1).spec)}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deploy, node, 2)
            await rolling(node, 2)
            nursery.cancel_scope.cancel()
        assert await states(node) == {2: "rolling", 1: "current"}
    async with served(place, ONE, clock) as again:
        assert again.deployments.current["app"].functions == (version(1, scaling=Scaling(min_containers=1)),)
        assert await states(again) == {2: "failed", 1: "current"}
        assert [spec.scaling.min_containers for spec in again.workers.kept()] == [1]


async def test_nobody_waits_for_ever(tmp_path):
    clock = HandClock()
    async with served(tmp_path / "state.sqlite", ONE, clock) as node:
        await deploy(node, 1)
        node.workers.stands_by = {function_id(version(1).spec)}
        failed = []

        async def try_it():
            with pytest.raises(ExecutionError, match="does not take over") as caught:
                await deploy(node, 2)
            failed.append(caught.value.why)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(try_it)
            await rolling(node, 2)
            clock.advance(WARM_US_MAX)
            node.deployments.standing(ev.Standing("another"))
        assert "had no worker" in failed[0]


async def test_websockets_of_what_is_replaced_have_an_end(tmp_path):
    async with served(tmp_path / "state.sqlite", ONE, HandClock()) as node:
        retired = []
        node.deployments.retired = lambda ids, drain_s: retired.append((ids, drain_s))
        for number in (1, 2):
            await deploy(node, number)
        assert [ids for ids, _ in retired] == [{function_id(version(1).spec)}]
        assert retired[0][1] > 0
        await node.deployments.deploy(check_apps.messages.DeployApp(1, "app", (version(3),), strategy="recreate"))
        assert [drain_s > 0 for _, drain_s in retired] == [True, True, False]


async def test_a_node_that_nobody_trusts_reads_nothing(postgres):
    url, clock = postgres.fresh(), HandClock()
    async with served(url, ONE, clock, trusts=lambda peer: False) as one, served(url, TWO, clock) as two:
        await deploy(one, 1)
        await known(one, 1)
        with pytest.raises(RefusedError, match="cannot read what is deployed"):
            await deploy(two, 2)
        while not two.deployments._locked:
            await trio.sleep(0.01)
        with pytest.raises(RefusedError, match="cannot read"):
            two.deployments.check_known("app")
        one.deployments._key._trusts = lambda peer: peer == TWO.peer
        one.deployments._news.set()
        await known(two, 1)
        two.deployments.check_known("app")


def test_nothing_of_a_secret_is_in_the_file(tmp_path):
    async def write():
        async with served(tmp_path / "state.sqlite", ONE, HandClock()) as node:
            await deploy(node, 1, secrets=(("KEY", "hunter2"),))

    trio.run(write)
    files = list(tmp_path.glob("state.sqlite*"))
    assert files
    assert b"hunter2" not in b"".join(file.read_bytes() for file in files)
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)


async def test_a_worker_that_fails_for_others_changes_nothing(tmp_path):
    async with served(tmp_path / "state.sqlite", ONE, HandClock()) as node:
        node.deployments.standing(ev.Standing("another"))
        assert await deploy(node, 1) == 1
