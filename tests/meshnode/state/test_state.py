"""`check_state` on both databases, and what one of them alone can do."""

from contextlib import asynccontextmanager

import pytest
import trio
from tests.conformance import check_state
from tests.meshnode.clocks import HandClock
from tests.postgres import Postgres, missing

from potluck_node.state.service import State

GIB = 1 << 30


@pytest.fixture(scope="module")
def postgres():
    if why := missing():
        pytest.skip(why)
    server = Postgres()
    yield server
    server.stop()


@asynccontextmanager
async def served(*states):
    async with trio.open_nursery() as nursery:
        for state in states:
            await nursery.start(state.serve)
        yield
        nursery.cancel_scope.cancel()
    for state in states:
        state.close()


@pytest.fixture(params=["sqlite", "postgres"])
def world(request, tmp_path):
    @asynccontextmanager
    async def make():
        clock = HandClock()
        if request.param == "sqlite":
            one = two = State(tmp_path / "state.sqlite", "one", clock, GIB)
            states = (one,)
        else:
            url = request.getfixturevalue("postgres").fresh()
            one, two = states = tuple(State(url, name, clock, GIB) for name in ("one", "two"))
        async with served(*states):
            yield check_state.Pair(one, two, clock)

    return make


@pytest.mark.parametrize("check", check_state.CHECKS, ids=lambda check: check.__name__)
async def test_it_keeps_its_promises(check, world):
    await check(world)
