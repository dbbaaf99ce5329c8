"""What schedules promise on every database. No pytest in here.

Each check takes a world: nodes of one database with `Deployments` and `Schedules`, on a clock that is moved by hand.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

import trio
from msgspec.structs import replace

from potluck.errors import NotFoundError
from potluck.wire import Failure, FunctionSpec
from potluck.wire import apps as messages
from potluck.wire.spawned import SpawnedOutcome
from potluck_node.core.schedules import LEAD_US, LEASE_US
from potluck_node.deployments import Deployments
from potluck_node.schedules import Schedules

SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US
SPEC = FunctionSpec("app", "tick", "ab" * 32, "3.11", module="m", qualname="tick")
HOURLY = messages.Schedule(us=HOUR_US)


class PlayedCalls:
    """The spawned calls of a node: what was started, and what is on its disk."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.started: list[str] = []
        self.outcomes: dict[str, SpawnedOutcome] = {}

    def new_call(self) -> str:
        return f"fc-{id(self):x}-{next(self._numbers)}"

    def spawn(self, call: str, function: FunctionSpec, payload: bytes) -> None:
        self.started.append(call)

    def known(self, call: str) -> bool:
        return call in self.started

    def outcome(self, call: str) -> SpawnedOutcome | None:
        return self.outcomes.get(call)


class Node(NamedTuple):
    """`end` is as pulling the plug."""

    deployments: Deployments
    schedules: Schedules
    calls: PlayedCalls
    end: Callable[[], None]


class World(NamedTuple):
    nodes: list[Node]
    clock: Any


MakeWorld = Callable[[], AbstractAsyncContextManager[World]]


def tick(schedule: messages.Schedule | None = HOURLY, image: str = "ab") -> messages.NamedFunction:
    return messages.NamedFunction("tick", replace(SPEC, image=image * 32), schedule=schedule)


async def deploy(node: Node, *functions: messages.NamedFunction) -> None:
    await node.deployments.deploy(messages.DeployApp(1, "app", functions))


async def quiet(world: World) -> None:
    """Let every node do what there is to do: look, and see that nothing comes of it any more."""
    for _ in range(3):
        for node in world.nodes:
            node.schedules.look()
            # Its next transaction comes after what it does now.
            await node.schedules.facts(messages.AskSchedules(1))
        await trio.sleep(0.05)


async def facts(node: Node) -> messages.ScheduleFacts:
    return (await node.schedules.facts(messages.AskSchedules(1, "app"))).schedules[0]


def started(world: World) -> int:
    return sum(len(node.calls.started) for node in world.nodes)


async def until(world: World, condition: Callable[[], bool]) -> None:
    while not condition():
        for node in world.nodes:
            node.schedules.look()
        await trio.sleep(0.01)


async def check_a_time_comes_once_for_all_nodes(make: MakeWorld) -> None:
    async with make() as world:
        await deploy(world.nodes[0], tick())
        begun_us = world.clock.now_us()
        assert (await facts(world.nodes[-1])).next_us == begun_us + HOUR_US
        for hour in (1, 2, 3):
            world.clock.advance(HOUR_US)
            await until(world, lambda hour=hour: started(world) >= hour)  # type: ignore[misc]
            await quiet(world)
            assert started(world) == hour
        runs = (await facts(world.nodes[0])).runs
        assert [run.due_us for run in runs] == [begun_us + hour * HOUR_US for hour in (3, 2, 1)]
        assert {run.state for run in runs} == {"running"}


async def check_whoever_dies_with_a_lease_is_followed(make: MakeWorld) -> None:
    async with make() as world:
        await deploy(world.nodes[0], tick())
        world.clock.advance(HOUR_US - LEAD_US + 1)
        await quiet(world)
        rows = await world.nodes[0].schedules._state.transact(_rows)
        holder = next(node for node in world.nodes if node.schedules._node == rows[0].holder)
        if len(world.nodes) == 1:
            return
        holder.end()
        world.nodes.remove(holder)
        world.clock.advance(LEASE_US)
        await until(world, lambda: started(world) > 0)
        await quiet(world)
        assert started(world) == 1
        assert not holder.calls.started


def _rows(work: Any) -> Any:
    from potluck_node.state import app_schedules

    return app_schedules.read(work)


async def check_of_many_that_were_missed_the_newest_runs(make: MakeWorld) -> None:
    async with make() as world:
        await deploy(world.nodes[0], tick())
        begun_us = world.clock.now_us()
        world.clock.advance(5 * HOUR_US + 1)
        await until(world, lambda: started(world) > 0)
        await quiet(world)
        assert [run.due_us - begun_us for run in (await facts(world.nodes[0])).runs] == [5 * HOUR_US]


async def check_an_unchanged_schedule_goes_on_over_versions(make: MakeWorld) -> None:
    async with make() as world:
        node = world.nodes[0]
        await deploy(node, tick())
        begun_us = world.clock.now_us()
        world.clock.advance(HOUR_US // 2)
        await deploy(node, tick(image="cd"))
        assert (await facts(node)).next_us == begun_us + HOUR_US
        await deploy(node, tick(messages.Schedule(us=2 * HOUR_US)))
        assert (await facts(node)).next_us == world.clock.now_us() + 2 * HOUR_US
        await deploy(node, tick(None))
        assert (await node.schedules.facts(messages.AskSchedules(1))).schedules == ()


async def check_how_a_run_ended_is_recorded(make: MakeWorld) -> None:
    async with make() as world:
        node = world.nodes[0]
        await deploy(node, tick())
        done = await node.schedules.run_now(messages.RunSchedule(1, "app", "tick"))
        world.clock.advance(1)
        failed = await node.schedules.run_now(messages.RunSchedule(1, "app", "tick"))
        assert node.calls.started == [done.call, failed.call]
        node.schedules.ended(done.call, SpawnedOutcome(0, 0, payload=b"x"))
        node.schedules.ended(failed.call, SpawnedOutcome(0, 0, failure=Failure("timeout", "too slow")))
        while "running" in {run.state for run in (await facts(node)).runs}:
            await trio.sleep(0.01)
        assert [(run.state, run.why, run.by_hand) for run in (await facts(node)).runs] == [
            ("failed", "too slow", True),
            ("done", "", True),
        ]
        assert (await facts(node)).next_us > world.clock.now_us()
        try:
            await node.schedules.run_now(messages.RunSchedule(1, "app", "other"))
        except NotFoundError:
            return
        raise AssertionError("ran what is not there")


CHECKS = [value for name, value in sorted(globals().items()) if name.startswith("check_")]
