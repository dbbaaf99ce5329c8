"""`check_state` on both databases, and what one of them alone can do."""

import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from tests.conformance import check_state
from tests.meshnode.clocks import HandClock

from potluck.errors import ConnectionError, InvalidError, StoreFullError
from potluck.wire import state as messages
from potluck_node.clock import SystemClock
from potluck_node.state.service import State

ROOT = Path(__file__).resolve().parents[3]
GIB = 1 << 30


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


def written_until(place, enough, kill):
    """The numbers that a writer saw acknowledged before `kill(process)`."""
    program = [sys.executable, "-m", "tests.meshnode.state.writer", str(place)]
    with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as writer:
        numbers = []
        for line in writer.stdout:
            numbers.append(int(line))
            if len(numbers) == enough:
                kill(writer)
        return numbers


async def kept(place):
    state = State(place, "reader", SystemClock(), GIB)
    async with served(state):
        queue = await state.ask(messages.Open(messages.QUEUE, "q"), check_state.OWNER)
        values = await check_state.values(state, messages.Dequeue(queue.id, most=messages.ITEMS_MAX))
    return [int(value) for value in values]


async def test_what_was_acknowledged_survives_a_killed_node(tmp_path):
    numbers = written_until(tmp_path / "state.sqlite", 50, lambda writer: writer.kill())
    found = await kept(tmp_path / "state.sqlite")
    assert found[: len(numbers)] == numbers
    assert len(found) <= len(numbers) + 1


async def test_what_was_acknowledged_survives_a_killed_postgres(postgres):
    url = postgres.fresh()
    numbers = written_until(url, 50, lambda writer: postgres.kill())
    postgres.start()
    found = await kept(url)
    assert found[: len(numbers)] == numbers
    assert len(found) <= len(numbers) + 1


async def test_waiting_goes_on_after_postgres_was_restarted(postgres):
    url = postgres.fresh()
    one, two = (State(url, name, HandClock(), GIB) for name in ("one", "two"))
    async with served(one, two), trio.open_nursery() as nursery:
        q = await check_state.make(one, messages.QUEUE, "q")
        got = []

        async def take():
            got.extend(await check_state.values(one, messages.Dequeue(q, wait_us=-1)))

        nursery.start_soon(take)
        await check_state._until_waiting(one, 1)
        await trio.to_thread.run_sync(postgres.kill)
        with pytest.raises(ConnectionError):
            await two.ask(messages.Enqueue(q, (b"lost",)), check_state.OWNER)
        await trio.to_thread.run_sync(postgres.start)
        assert await check_state.yes(two, messages.Enqueue(q, (b"found",)))
        await check_state._until(lambda: got == [b"found"])


async def test_there_is_a_bound_to_what_is_held(tmp_path):
    state = State(tmp_path / "state.sqlite", "one", HandClock(), 1000)
    async with served(state):
        d = await check_state.make(state, messages.DICT)
        put = messages.Put(d, (check_state.key("a"),), (bytes(900),))
        assert await check_state.yes(state, put)
        await check_state.refused(StoreFullError, state, messages.Put(d, (check_state.key("b"),), (bytes(900),)))
        await state.ask(messages.Clear(d), check_state.OWNER)
        assert await check_state.yes(state, put)


@pytest.mark.parametrize("place", ["mysql://somewhere/else", "postgresql://nobody@/none?host=/nowhere", "nonsense"])
def test_a_database_that_cannot_be_used_is_refused(place):
    with pytest.raises(InvalidError):
        State(place, "one", HandClock(), GIB)
