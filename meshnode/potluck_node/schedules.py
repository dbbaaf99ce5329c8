"""Runs scheduled functions when their time comes: this node's part of what `core.schedules` plans for a database.

A run is a spawned call of the node that starts it, which goes on over a restart as all of them do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

import trio

from potluck.errors import Error, NotFoundError
from potluck.wire import FunctionSpec
from potluck.wire import apps as messages
from potluck.wire.spawned import SpawnedOutcome
from potluck_node.clock import Clock
from potluck_node.core import schedules as core
from potluck_node.core.schedules import Claim, Fire, Key
from potluck_node.state import app_schedules as records
from potluck_node.state.service import State
from potluck_node.state.work import Work

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("potluck.schedules")

# Runs of each schedule that `potluck app schedules` shows.
SHOWN = 20
# While a database is away, seconds between two tries.
RETRY_S = 1.0
# What is run has no arguments: the pickle of ((), {}), written out, since the node has nothing that pickles.
NO_ARGUMENTS = b"\x80\x02)}\x86."


class Spawned(Protocol):
    """The spawned calls."""

    def new_call(self) -> str:
        """A number for a call that is to be."""
        ...

    def spawn(self, call: str, function: FunctionSpec, payload: bytes) -> None: ...
    def known(self, call: str) -> bool: ...
    def outcome(self, call: str) -> SpawnedOutcome | None: ...


class Schedules:
    """`find` gives a function that is deployed now, None when it is not."""

    def __init__(
        self, state: State, spawned: Spawned, find: Callable[[str, str], FunctionSpec | None], node: str, clock: Clock
    ) -> None:
        self._state, self._spawned, self._find, self._node, self._clock = state, spawned, find, node, clock
        self._ended: dict[str, SpawnedOutcome] = {}
        self._running: set[str] = set()
        self._news = trio.Event()
        state.on_apps.append(self.look)

    def look(self) -> None:
        """Something may have changed."""
        self._news.set()

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run what is due until cancelled."""
        task_status.started()
        await self._insist(self._take_up)
        while True:
            wake_us = await self._insist(self._step)
            left_s = max(0, wake_us - self._clock.now_us()) / 1e6 if wake_us else float("inf")
            with trio.move_on_after(left_s):
                await self._news.wait()

    async def _insist(self, work: Callable[[], object]) -> int | None:
        """Do it, however long the database is away."""
        while True:
            self._news = trio.Event()
            try:
                return await work()  # type: ignore[misc, no-any-return]
            except Error as error:
                log.warning("schedules wait: %s", error)
                await trio.sleep(RETRY_S)

    async def _take_up(self) -> None:
        """What this node had begun goes on, or has ended, or never began."""
        for call in await self._state.transact(lambda work: records.running(work, self._node)):
            if not self._spawned.known(call):
                await self._state.transact(
                    lambda work, call=call: records.end(work, call, records.LOST, "its node died")  # type: ignore[misc]
                )
                continue
            self._running.add(call)
            if outcome := self._spawned.outcome(call):
                self._ended[call] = outcome

    async def _step(self) -> int | None:
        await self._record_ends()
        rows = await self._state.transact(records.read)
        # Whatever is not to be read here is for others.
        rows = [row for row in rows if self._find(*row.key)]
        actions, wake_us = core.plan(rows, self._node, self._clock.now_us())
        claims = [action.key for action in actions if isinstance(action, Claim)]
        if claims:
            await self._state.transact(lambda work: records.claim(work, claims, self._node))
        for action in actions:
            if isinstance(action, Fire):
                await self._fire(action)
        return self._clock.now_us() if actions else wake_us

    async def _fire(self, fire: Fire) -> None:
        """First the record, then the run: a node that dies in between loses one, and none runs twice."""
        call, spec = self._spawned.new_call(), self._find(*fire.key)
        if spec is None:
            return  # no longer deployed
        recorded: bool = await self._state.transact(lambda work: records.fire(work, fire, self._node, call))
        if recorded:
            log.info("%s of %s runs as planned, as %s", fire.key.function, fire.key.app, call)
            await self._begin(call, spec)

    async def _begin(self, call: str, spec: FunctionSpec) -> None:
        self._running.add(call)
        try:
            self._spawned.spawn(call, spec, NO_ARGUMENTS)
        except Error as error:
            self._running.discard(call)
            why = f"{error.what} {error.why}".strip()
            await self._state.transact(lambda work: records.end(work, call, records.FAILED, why))

    def ended(self, call: str, outcome: SpawnedOutcome) -> None:
        """A spawned call has its outcome."""
        if call in self._running:
            self._ended[call] = outcome
            self.look()

    async def _record_ends(self) -> None:
        for call, outcome in list(self._ended.items()):
            await self._state.transact(_ending(call, outcome))
            del self._ended[call]
            self._running.discard(call)

    # What clients ask

    async def run_now(self, question: messages.RunSchedule) -> messages.RunStarted:
        """Raises `NotFoundError`."""
        key, call = Key(question.app, question.function), self._spawned.new_call()
        spec = self._find(*key)
        if spec is None:
            raise NotFoundError(f"{key.app} has no function {key.function}.", fix="See `potluck app schedules`.")
        await self._state.transact(lambda work: records.run_now(work, key, self._node, call))
        await self._begin(call, spec)
        return messages.RunStarted(question.question, call)

    async def facts(self, question: messages.AskSchedules) -> messages.Schedules:
        found = await self._state.transact(lambda work: list(self._facts(work, question.app)))
        return messages.Schedules(question.question, tuple(found))

    def _facts(self, work: Work, app: str) -> Iterable[messages.ScheduleFacts]:
        for row in records.read(work):
            if app in ("", row.key.app):
                next_us = core.following(row.schedule, row.since_us, max(row.since_us, row.last_us, work.now_us))
                runs = tuple(map(_run, records.runs(work, row.key, SHOWN)))
                yield messages.ScheduleFacts(*row.key, row.schedule, next_us or 0, runs)


def _ending(call: str, outcome: SpawnedOutcome) -> Callable[[Work], None]:
    state, why = records.DONE, ""
    if outcome.exception:
        state, why = records.FAILED, f"{outcome.exception.type_name}: {outcome.exception.message}"
    elif outcome.failure:
        state, why = records.FAILED, f"{outcome.failure.what} {outcome.failure.why}".strip()
    return lambda work: records.end(work, call, state, why)


def _run(row: object) -> messages.RunFacts:
    names = ("due_us", "at_us", "state", "node", "call", "by_hand", "why")
    return messages.RunFacts(*(getattr(row, name) for name in names))
