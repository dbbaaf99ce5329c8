"""`check_schedules` on both databases, with three nodes where they share one; and restarts."""

from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from tests.conformance import check_schedules
from tests.conformance.check_apps import Played
from tests.conformance.check_schedules import HOUR_US, Node, PlayedCalls, World, deploy, facts, tick, until
from tests.meshnode.clocks import HandClock

from potluck.wire.spawned import SpawnedOutcome
from potluck_ledger.keys import PrivateKey
from potluck_node.deployments import Deployments
from potluck_node.schedules import Schedules
from potluck_node.state.app_key import AppKey
from potluck_node.state.service import State

GIB = 1 << 30
KEYS = [PrivateKey(bytes([number]) * 32) for number in (1, 2, 3)]


@asynccontextmanager
async def served(place, key, clock, calls=None):
    state, calls = State(place, key.peer, clock, GIB), calls or PlayedCalls()
    deployments = Deployments(state, AppKey(key, lambda peer: True), key.peer, Played(), clock)
    schedules = Schedules(state, calls, deployments.find, key.peer, clock)
    deployments.changed.append(lambda app, deployment: schedules.look())
    async with trio.open_nursery() as nursery:
        for service in (state, deployments, schedules):
            await nursery.start(service.serve)
        yield Node(deployments, schedules, calls, nursery.cancel_scope.cancel)
        nursery.cancel_scope.cancel()
    state.close()


@pytest.fixture(params=["sqlite", "postgres"])
def make(request, tmp_path):
    @asynccontextmanager
    async def world():
        clock = HandClock()
        if request.param == "sqlite":
            places = [(tmp_path / "state.sqlite", KEYS[0])]
        else:
            url = request.getfixturevalue("postgres").fresh()
            places = [(url, key) for key in KEYS]
        async with AsyncExitStack() as stack:
            nodes = [await stack.enter_async_context(served(place, key, clock)) for place, key in places]
            while any(node.deployments._key.vault is None for node in nodes):
                await trio.sleep(0.01)
            yield World(nodes, clock)

    return world


@pytest.mark.parametrize("check", check_schedules.CHECKS, ids=lambda check: check.__name__)
async def test_it_keeps_its_promises(check, make):
    await check(make)


async def test_after_a_restart_what_had_begun_is_known(tmp_path):
    place, clock, calls = tmp_path / "state.sqlite", HandClock(), PlayedCalls()
    async with served(place, KEYS[0], clock, calls) as node:
        await deploy(node, tick())
        for _ in range(3):
            clock.advance(HOUR_US)
            count = len(calls.started)
            await until(World([node], clock), lambda count=count: len(calls.started) > count)
    first, second, _ = calls.started
    # The node died before the first one was recorded as a call; the second ended while it was away.
    calls.started.remove(first)
    calls.outcomes[second] = SpawnedOutcome(0, 0, payload=b"")
    async with served(place, KEYS[0], clock, calls) as again:
        while [run.state for run in (await facts(again)).runs] != ["running", "done", "lost"]:
            await trio.sleep(0.01)
        again.schedules.ended(calls.started[-1], SpawnedOutcome(0, 0, payload=b""))
        while (await facts(again)).runs[0].state != "done":
            await trio.sleep(0.01)
