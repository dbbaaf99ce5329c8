"""Deployed apps, what runs, what was printed: kept within bounds, and gone with whoever brought it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.conformance.check_apps import Played
from tests.conformance.check_schedules import PlayedCalls

from potluck.errors import InvalidError, NotFoundError
from potluck.wire import Failure, FunctionSpec, Scaling, control
from potluck.wire import apps as messages
from potluck.wire.lease import InputLog
from potluck.wire.worker import LOG_BYTES_MAX
from potluck_ledger.keys import PrivateKey
from potluck_node.app_logs import APP_BYTES_MAX, APPS_MAX, Logs
from potluck_node.apps import PER_CLIENT_MAX, Apps, ClientApps
from potluck_node.deployments import Deployments
from potluck_node.schedules import Schedules
from potluck_node.state.app_key import AppKey
from potluck_node.state.service import State

SPEC = FunctionSpec("app", "work", "ab" * 32, "3.11", module="m", qualname="work", secrets=(("KEY", "value"),))
WORK = messages.NamedFunction("work", SPEC)
NOW_US = 1_800_000_000_000_000


class StepClock:
    """Each look is a microsecond later."""

    def __init__(self) -> None:
        self.at_us = NOW_US

    def now_us(self) -> int:
        self.at_us += 1
        return self.at_us


class Somebody:
    """A client, or the spawned calls, with open calls of these apps."""

    def __init__(self, pid: int = 1, calls: Iterable[str] = ()) -> None:
        self.apps = ClientApps(pid)
        self.calls, self.call = list(calls), ""
        self.ended: list[Failure | str] = []

    def open_apps(self) -> list[str]:
        return self.calls

    def cancel_app(self, app: str, why: Failure | str) -> int:
        count = self.calls.count(app)
        self.ended += [why] * count
        return count

    def cancel_call(self, call: str, why: Failure | str) -> bool:
        self.ended += [why] * (call == self.call)
        return call == self.call


class Desk:
    def __init__(self, deployments: Deployments) -> None:
        self.spawned, self.clients = Somebody(), [Somebody()]
        self.workers = deployments._workers
        schedules = Schedules(deployments._state, PlayedCalls(), deployments.find, "node", StepClock())
        self.apps = Apps(deployments, schedules, self.spawned, lambda: self.clients, StepClock())

    async def ask(self, question: messages.AppQuestion, client: Somebody | None = None) -> object:
        return await self.apps.answer(question, client or self.clients[0])

    async def states(self) -> dict[str, str]:
        answer = await self.ask(messages.AskApps(1))
        assert isinstance(answer, messages.Apps)
        return {each.app: each.state for each in answer.apps}


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    key = PrivateKey(bytes(32))
    state = State(tmp_path / "state.sqlite", key.peer, StepClock(), 1 << 30)
    deployments = Deployments(state, AppKey(key, lambda peer: True), key.peer, Played(), StepClock())
    async with trio.open_nursery() as nursery:
        await nursery.start(state.serve)
        await nursery.start(deployments.serve)
        yield Desk(deployments)
        nursery.cancel_scope.cancel()
    state.close()


# What goes on


async def test_an_app_is_in_the_state_that_says_most(desk: Desk) -> None:
    await desk.ask(messages.DeployApp(1, "app", (WORK,)))
    assert await desk.states() == {"app": "deployed"}
    await desk.ask(messages.StartApp(1, "app"))
    assert await desk.states() == {"app": "running"}
    await desk.ask(messages.DeployApp(1, "app", (WORK,), lasting=False))
    assert await desk.states() == {"app": "serving"}
    desk.clients = [Somebody()]
    desk.spawned.calls = ["app", "other"]
    assert await desk.states() == {"app": "deployed", "other": "detached"}


async def test_functions_whose_objects_nobody_knows_are_not_kept(desk: Desk) -> None:
    wants = replace(WORK, spec=replace(SPEC, scaling=Scaling(min_containers=2)))
    unknown = replace(wants, name="Model", parameters=(messages.ParameterFacts("size", "int"),))
    await desk.ask(messages.DeployApp(1, "app", (wants, unknown, replace(WORK, name="plain"))))
    assert desk.workers.kept() == [wants.spec]
    await desk.ask(messages.StopApp(1, "app"))
    assert desk.workers.kept() == []


async def test_what_is_written_into_a_history_is_checked(desk: Desk) -> None:
    for words in ({"tag": "x" * 65}, {"comment": "two\nlines"}, {"author": "x" * 201}, {"strategy": "hope"}):
        with pytest.raises(InvalidError):
            await desk.ask(messages.DeployApp(1, "app", (WORK,), **words))  # type: ignore[arg-type]
    facts = await desk.ask(messages.DeployApp(1, "app", (WORK,), tag="v2.1", comment="faster"))
    assert isinstance(facts, messages.AppFacts)
    assert facts.version == 1
    history = await desk.ask(messages.AskHistory(1, "app"))
    assert isinstance(history, messages.AppHistory)
    assert [(each.tag, each.comment, each.state) for each in history.versions] == [("v2.1", "faster", "current")]
    with pytest.raises(NotFoundError, match="No app named other"):
        await desk.ask(messages.RollBack(1, "other"))
    with pytest.raises(NotFoundError, match="no version to go back to"):
        await desk.ask(messages.RollBack(1, "app"))


async def test_of_two_that_serve_an_app_the_later_counts(desk: Desk) -> None:
    later = Somebody()
    desk.clients.insert(0, later)
    await desk.ask(messages.DeployApp(1, "app", (WORK,), lasting=False), desk.clients[1])
    await desk.ask(messages.DeployApp(1, "app", (replace(WORK, name="new"),), lasting=False), later)
    facts = await desk.ask(messages.AskApp(1, "app"))
    assert isinstance(facts, messages.AppFacts)
    assert [each.name for each in facts.functions] == ["new"]
    desk.clients.remove(later)
    facts = await desk.ask(messages.AskApp(1, "app"))
    assert isinstance(facts, messages.AppFacts)
    assert facts.functions == (WORK,)


async def test_an_unknown_name_is_answered_with_the_nearest(desk: Desk) -> None:
    await desk.ask(messages.DeployApp(1, "digits", (WORK,)))
    with pytest.raises(NotFoundError, match="No app named digit") as caught:
        await desk.ask(messages.AskApp(1, "digit"))
    assert "digits" in caught.value.fix


@pytest.mark.parametrize(
    ("app", "functions"),
    [
        ("", (WORK,)),
        ("a b", (WORK,)),
        ("x" * 65, (WORK,)),
        ("app", ()),
        ("app", (WORK, WORK)),
        ("app", (replace(WORK, spec=replace(SPEC, timeout_us=-1)),)),
    ],
)
async def test_what_cannot_be_is_not_deployed(
    desk: Desk, app: str, functions: tuple[messages.NamedFunction, ...]
) -> None:
    with pytest.raises(InvalidError):
        await desk.ask(messages.DeployApp(1, app, functions))
    assert await desk.states() == {}


async def test_there_is_an_end_to_apps(desk: Desk) -> None:
    for number in range(PER_CLIENT_MAX):
        await desk.ask(messages.StartApp(1, f"app{number}"))
    await desk.ask(messages.StartApp(1, "app0"))
    with pytest.raises(InvalidError, match="run by this program already"):
        await desk.ask(messages.StartApp(1, "another"))
    with pytest.raises(InvalidError, match="not a name"):
        await desk.ask(messages.StartApp(1, "a/b"))


# Stopping


async def test_one_call_is_cancelled_whoever_made_it(desk: Desk) -> None:
    program = Somebody(1)
    desk.clients, program.call, desk.spawned.call = [Somebody(2), program], "1.7", "fc-1"
    for call in ("1.7", "fc-1"):
        assert await desk.ask(messages.EndCall(1, call, "enough")) == control.Done(1)
    assert desk.spawned.ended == ["enough"]
    assert [(each.kind, each.why) for each in program.ended if isinstance(each, Failure)] == [("cancelled", "enough")]
    with pytest.raises(NotFoundError, match=r"No open call 1\.8") as caught:
        await desk.ask(messages.EndCall(1, "1.8", "enough"))
    assert "call list" in caught.value.fix


async def test_stopping_ends_everybodys_calls_and_marks_the_programs_that_run_it(desk: Desk) -> None:
    runner, twin, finder = Somebody(1, ["app", "app", "other"]), Somebody(1), Somebody(2, ["app"])
    desk.clients = [runner, twin, finder]
    desk.spawned.calls = ["app"]
    await desk.ask(messages.StartApp(1, "app"), runner)
    await desk.ask(messages.DeployApp(1, "app", (WORK,)), finder)
    answer = await desk.ask(messages.StopApp(1, "app", "enough"))
    assert answer == messages.AppStopped(1, 4, True)
    assert (len(runner.ended), len(finder.ended), desk.spawned.ended) == (2, 1, ["enough"])
    assert [set(each.apps.stopped) for each in desk.clients] == [{"app"}, {"app"}, set()]
    with pytest.raises(NotFoundError):
        await desk.ask(messages.AskApp(1, "app"))
    await desk.ask(messages.StartApp(1, "app"), twin)
    assert not runner.apps.stopped


# What was printed


def printed(text: str, worker: str = "ann-1") -> InputLog:
    return InputLog(1, worker, 1, text.encode())


async def test_a_reader_gets_everything_once_and_waits_for_more(autojump_clock: trio.testing.MockClock) -> None:
    logs, seen = Logs(), list[bytes]()
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            after = 0
            while len(seen) < 3:
                lines, _ = await logs.after("app", after, "", 3_600_000_000)
                seen.extend(line.data for line in lines)
                after = lines[-1].number

        nursery.start_soon(read)
        for text in ("one", "two", "three"):
            logs.add("app", "work", printed(text), NOW_US)
            logs.add("other", "work", printed("no"), NOW_US)
            await trio.testing.wait_all_tasks_blocked()
    assert seen == [b"one", b"two", b"three"]
    assert trio.current_time() < 3600


async def test_a_reader_is_not_kept_longer_than_it_wants(autojump_clock: trio.testing.MockClock) -> None:
    begun = trio.current_time()
    assert await Logs().after("app", 0, "", 2_000_000) == ((), False)
    assert trio.current_time() - begun == pytest.approx(2)


async def test_one_workers_prints_are_found_in_all_apps() -> None:
    logs = Logs()
    logs.add("one", "work", printed("a", "ann-1"), NOW_US)
    logs.add("two", "work", printed("b", "ann-2"), NOW_US)
    logs.add("two", "work", printed("c", "ann-1"), NOW_US)
    lines, missed = await logs.after("", 0, "ann-1", 0)
    assert ([line.data for line in lines], missed) == ([b"a", b"c"], False)


@given(st.lists(st.integers(min_value=0, max_value=3 * LOG_BYTES_MAX), max_size=60))
def test_the_newest_are_kept_within_bounds_and_a_reader_learns_of_the_rest(sizes: list[int]) -> None:
    async def check() -> None:
        logs, numbers, after = Logs(), list[int](), 0
        for size in sizes:
            logs.add("app", "work", printed("x" * size), NOW_US)
        missed = False
        while True:
            lines, dropped = await logs.after("app", after, "", 0)
            missed = missed or dropped
            if not lines:
                break
            assert sum(len(line.data) for line in lines) <= APP_BYTES_MAX
            numbers += [line.number for line in lines]
            after = numbers[-1]
        assert numbers == list(range(len(sizes) - len(numbers) + 1, len(sizes) + 1))
        assert missed == (len(numbers) < len(sizes))
        assert not sizes or numbers

    trio.run(check)


async def test_the_app_that_was_silent_for_longest_is_forgotten() -> None:
    logs = Logs()
    for number in range(APPS_MAX + 1):
        logs.add(f"app{number}", "work", printed("x"), NOW_US)
        logs.add("app0", "work", printed("x"), NOW_US)
    assert len(logs.names()) == APPS_MAX
    assert "app0" in logs.names()
    assert "app1" not in logs.names()
