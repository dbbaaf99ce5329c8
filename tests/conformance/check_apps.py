"""What deployments promise on every database. No pytest in here.

Each check takes a world: `async with world() as (one, two)` gives two served nodes' `Deployments` on one database (the
same one twice where it cannot be shared), with workers that are played.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

import trio
import trio.testing
from msgspec.structs import replace

from potluck.errors import Error, ExecutionError, NotFoundError
from potluck.wire import Failure, FunctionSpec, Scaling, function_id
from potluck.wire import apps as messages
from potluck_node.core import events as ev
from potluck_node.deployments import Deployments
from potluck_node.state.app_versions import HISTORY_MAX


class Played:
    """The caller's side: what is kept by whom, what runs, and what stands by."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.runs: list[FunctionSpec] = []
        self.stands_by: set[str] = set()

    def submit(self, event: ev.FunctionKept | ev.FunctionLeft | ev.ScalingSet) -> None:
        self.events.append(event)

    def running(self, app: str) -> list[FunctionSpec]:
        return [each for each in self.runs if each.app == app]

    def warm(self) -> set[str]:
        return self.stands_by

    def kept(self) -> list[FunctionSpec]:
        """What is kept now."""
        kept: dict[str, list[FunctionSpec]] = {}
        for event in self.events:
            if isinstance(event, ev.FunctionKept):
                kept.setdefault(event.holder, []).append(event.function)
            elif isinstance(event, ev.FunctionLeft):
                kept.pop(event.holder, None)
        return [spec for specs in kept.values() for spec in specs]


class Node(NamedTuple):
    deployments: Deployments
    workers: Played


class Pair(NamedTuple):
    one: Node
    two: Node
    clock: Any


World = Callable[[], AbstractAsyncContextManager[Pair]]

SPEC = FunctionSpec("app", "work", "ab" * 32, "3.11", module="m", qualname="work", secrets=(("KEY", "value"),))


def version(number: int, **fields: Any) -> messages.NamedFunction:
    return messages.NamedFunction("work", replace(SPEC, image=f"{number:064x}", **fields))


def asked(number: int, **fields: Any) -> messages.DeployApp:
    return messages.DeployApp(1, "app", (version(number, **fields),), author="ann@home")


async def deploy(node: Node, number: int, **fields: Any) -> int:
    return (await node.deployments.deploy(asked(number, **fields))).version


async def states(node: Node) -> dict[int, str]:
    history = await node.deployments.history(messages.AskHistory(1, "app"))
    return {each.version: each.state for each in history.versions}


async def known(node: Node, wanted: int) -> None:
    """Wait until a node follows; the other one tells it through the database."""
    while node.deployments.current.get("app") is None or node.deployments.current["app"].version != wanted:
        await trio.sleep(0.01)


async def check_a_version_is_seen_by_all_nodes(world: World) -> None:
    async with world() as (one, two, _):
        assert await deploy(one, 1) == 1
        await known(two, 1)
        assert two.deployments.current["app"].functions == (version(1),)
        assert await deploy(two, 2) == 2
        await known(one, 2)
        assert await states(one) == {2: "current", 1: "past"}


async def check_what_is_used_takes_over_when_it_is_warm(world: World) -> None:
    async with world() as (one, _, _):
        await deploy(one, 1)
        one.workers.stands_by = {function_id(version(1).spec)}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deploy, one, 2)
            await rolling(one, 2)
            assert one.deployments.current["app"].version == 1
            assert [spec.image for spec in one.workers.kept()] == [version(2).spec.image]
            one.deployments.standing(ev.Standing(function_id(version(2).spec)))
        assert one.deployments.current["app"].version == 2
        assert one.workers.kept() == []


async def rolling(node: Node, number: int) -> None:
    """Wait until a version has its first worker started."""
    image = version(number).spec.image
    while image not in [spec.image for spec in node.workers.kept()]:
        await trio.sleep(0.01)


async def deploy_in_vain(node: Node, number: int, failed: list[Error]) -> None:
    """Try, and note why it failed, if so."""
    try:
        await deploy(node, number)
    except ExecutionError as error:
        failed.append(error)


async def check_a_version_that_cannot_start_never_takes_over(world: World) -> None:
    async with world() as (one, two, _):
        await deploy(one, 1)
        one.workers.runs = [version(1).spec]
        failed: list[Error] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deploy_in_vain, one, 2, failed)
            await rolling(one, 2)
            broken = Failure.of(ExecutionError("work cannot be started.", why="enter raised"))
            one.deployments.standing(ev.Standing(function_id(version(2).spec), broken))
        assert "enter raised" in failed[0].why
        assert "Version 1 still answers" in failed[0].fix
        assert one.deployments.current["app"].version == 1
        assert await states(two) == {2: "failed", 1: "current"}
        assert one.workers.kept() == []
        one.workers.runs = []
        assert await deploy(one, 3) == 3


async def check_a_later_version_wins(world: World) -> None:
    async with world() as (one, two, _):
        await deploy(one, 1)
        await known(two, 1)
        one.workers.runs = [version(1).spec]
        failed: list[Error] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deploy_in_vain, one, 2, failed)
            await rolling(one, 2)
            two.workers.runs = []
            assert await deploy(two, 3) == 3 if one is not two else await replaced(one)
            one.deployments.standing(ev.Standing(function_id(version(2).spec)))
        await known(one, 3)
        assert "another version" in failed[0].why
        assert await states(two) == {3: "current", 2: "failed", 1: "past"}


async def replaced(node: Node) -> bool:
    node.workers.runs = []
    return await deploy(node, 3) == 3


async def check_a_rollback_is_a_new_version(world: World) -> None:
    async with world() as (one, two, _):
        for number in (1, 2, 3):
            await deploy(one, number)
        await one.deployments.roll_back(messages.RollBack(1, "app"))
        assert one.deployments.current["app"].functions == (version(2),)
        await known(two, 4)
        await two.deployments.roll_back(messages.RollBack(1, "app", 1))
        assert two.deployments.current["app"].functions == (version(1),)
        history = await one.deployments.history(messages.AskHistory(1, "app"))
        assert [(each.version, each.source) for each in history.versions] == [(5, 1), (4, 2), (3, 0), (2, 0), (1, 0)]
        digests = [each.digest for each in history.versions]
        assert digests[0] == digests[4] != digests[2]
        for missing in (9, 0):
            try:
                app = "app" if missing else "other"
                await one.deployments.roll_back(messages.RollBack(1, app, missing))
            except NotFoundError:
                continue
            raise AssertionError("went back to what never was")


async def check_the_history_has_an_end(world: World) -> None:
    async with world() as (one, _, _):
        for number in range(HISTORY_MAX + 3):
            await deploy(one, number)
        kept = await states(one)
        assert len(kept) == HISTORY_MAX
        assert max(kept) == HISTORY_MAX + 3
        assert kept[HISTORY_MAX + 3] == "current"


async def check_what_is_forgotten_is_gone_everywhere(world: World) -> None:
    async with world() as (one, two, _):
        await deploy(one, 1, scaling=Scaling(min_containers=2))
        await known(two, 1)
        assert [spec.scaling.min_containers for spec in one.workers.kept()] == [2]
        assert await two.deployments.forget("app")
        while one.deployments.current:
            await trio.sleep(0.01)
        assert one.workers.kept() == []
        assert not await one.deployments.forget("app")
        assert await deploy(one, 1) == 1


CHECKS = [value for name, value in sorted(globals().items()) if name.startswith("check_")]
