"""Spawned calls: recorded, then run by this node whoever is connected, also after a restart, until each input is done.

A call is opened with the caller's core like any client's; its outcomes go to disk before anybody is told. An input
whose outcome was not yet recorded when the node died runs again.
"""

from __future__ import annotations

import itertools
import logging
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from potluck import wire
from potluck.errors import Error, InputCancellation, InvalidError, NotFoundError, StoreFullError
from potluck.wire import Failure, FunctionSpec
from potluck.wire import spawned as messages
from potluck.wire.control import INPUTS_AHEAD_MAX
from potluck.wire.lease import InputLog
from potluck_node.caller import Caller
from potluck_node.clock import Clock
from potluck_node.core import events as ev
from potluck_node.core.admission import nonsense
from potluck_node.errands import Errands
from potluck_node.spawned_store import SpawnedStore, Under, new_call

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("potluck.spawned")

# Shows a client what was printed.
Show = Callable[[InputLog], None]

# Results are kept for days; looking for old ones every hour is often enough.
PURGE_S = 3600.0
# The outcome of a generator, which is always empty.
NO_ITEMS = Failure.of(
    InvalidError("What a spawned generator yields is not kept.", fix="Call it with .remote_gen, or return a list.")
)
# How often a full disk is tried again, seconds.
DISK_PAUSE_S = 5.0


class SpawnedCalls:
    """Answers `messages.SpawnQuestion`s; the sink of all spawned calls."""

    def __init__(self, store: SpawnedStore, caller: Caller, clock: Clock, errands: Errands) -> None:
        self._store, self._caller, self._clock, self._errands = store, caller, clock, errands
        errands.lost = self._lost
        # Told (app, function, what it printed).
        self.on_log: Callable[[str, str, InputLog], None] = lambda app, function, message: None
        # Told (call, outcome) once that is on disk.
        self.on_outcome: Callable[[str, messages.SpawnedOutcome], None] = lambda call, outcome: None
        # Of each call that runs.
        self._functions: dict[str, FunctionSpec] = {}
        # Who spawned it or waited for it, of each call that runs.
        self._shown: defaultdict[str, set[Show]] = defaultdict(set)
        # What waits for a program that compares, of each call that runs.
        self._judging: defaultdict[str, dict[int, ev.AskJudge]] = defaultdict(dict)
        # From anywhere: an answer to what was asked before a restart is to nothing then.
        self._numbers = itertools.count(secrets.randbits(48))
        # Call → the last input that was handed to the core; and how many of those have no outcome.
        self._fed: dict[str, int] = {}
        self._ahead: Counter[str] = Counter()
        self._changed: dict[str, trio.Event] = {}
        # Outcomes that are not on disk yet, at most as many as inputs are with the core.
        self._came: list[tuple[str, messages.SpawnedOutcome]] = []
        self._wake = trio.Event()

    @property
    def running(self) -> int:
        """Calls that lack outcomes."""
        return len(self._fed)

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Go on with what was not finished, then forget old results now and then."""
        self._store.drop_partial()
        for call in self._store.unfinished():
            self._open(call)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._record)
            task_status.started()
            while True:
                self._store.purge(self._clock.now_us())
                await trio.sleep(PURGE_S)

    async def answer(
        self, question: messages.SpawnQuestion, show: Show, asked: tuple[str, int] | None = None
    ) -> wire.Message:
        """`show` is told what the call prints from then on. A function that spawns has `asked`, (lease, input): its
        limits hold, too. Raises `potluck.errors.Error`."""
        match question:
            case messages.SpawnCall():
                if problem := nonsense(question.function):
                    raise Error("A function that cannot be is not recorded.", why=problem)
                if question.service:
                    self._errands.check(question.function.app, question.service)
                now_us, under = self._clock.now_us(), self._limits_of(asked)
                call = self._store.add(
                    question.function, question.payloads, now_us, whole=not question.more, under=under,
                    verify=question.verify,
                )  # fmt: skip
                if question.service:
                    self._errands.open(call, question.function.app, question.service)
                self._shown[call].add(show)
                return self._recorded(question.question, call, question.more)
            case messages.AddSpawned():
                self._store.extend(question.call, question.payloads, whole=not question.more)
                return self._recorded(question.question, question.call, question.more)
            case messages.CancelSpawned():
                self._cancel(question.call, question.reason)
            case messages.SpawnedJudged():
                if case := self._judging.get(question.call, {}).pop(question.number, None):
                    judged = ev.ResultsJudged(question.call, case.case, question.agrees, question.failure)
                    self._caller.submit(judged)
            case messages.AwaitOutcome():
                return await self._outcome(question, show)
        return self._facts(question.question, question.call)

    def _limits_of(self, asked: tuple[str, int] | None) -> tuple[Under, ...]:
        return self._caller.core.limits_of(asked, lambda: secrets.token_hex(16)) if asked else ()

    # Calls of the node's own, on a schedule

    def new_call(self) -> str:
        """A number for a call that is to be."""
        return new_call()

    def spawn(self, call: str, function: FunctionSpec, payload: bytes) -> None:
        """Record a call with one input, and run it. Raises `potluck.errors.Error`."""
        self._store.add(function, (payload,), self._clock.now_us(), whole=True, call=call)
        self._open(call)

    def known(self, call: str) -> bool:
        """Whether it is recorded."""
        try:
            return bool(self._store.facts(call))
        except NotFoundError:
            return False

    def outcome(self, call: str) -> messages.SpawnedOutcome | None:
        """That of its only input, None while there is none."""
        return self._store.outcome(call, 0)

    def _recorded(self, question: int, call: str, more: bool) -> messages.Spawned:
        if not more:
            self._open(call)
        return self._facts(question, call)

    def _facts(self, question: int, call: str) -> messages.Spawned:
        facts = self._store.facts(call)
        return messages.Spawned(question, call, f"{facts.function.app}.{facts.function.name}", facts.inputs, facts.done)

    async def _outcome(
        self, question: messages.AwaitOutcome, show: Show
    ) -> messages.SpawnedOutcome | messages.JudgeSpawned:
        limit_s = question.timeout_us / 1e6 if question.timeout_us >= 0 else float("inf")
        found = self._store.outcome(question.call, question.index)
        if question.call in self._fed:
            self._shown[question.call].add(show)
        with trio.move_on_after(limit_s):
            while found is None:
                if question.judges and (cases := self._judging.get(question.call)):
                    number, case = next(iter(cases.items()))
                    return messages.JudgeSpawned(question.question, question.call, number, case.payloads)
                await self._changed.setdefault(question.call, trio.Event()).wait()
                found = self._store.outcome(question.call, question.index)
        if found is None:
            return messages.SpawnedOutcome(question.question, question.index)
        return messages.SpawnedOutcome(question.question, question.index, found.payload, found.exception, found.failure)

    # Running

    def _open(self, call: str) -> None:
        facts = self._store.facts(call)
        if facts.done == facts.inputs:
            return
        self._fed[call] = -1
        self._functions[call] = facts.function
        self._caller.open(
            call, facts.function, self, verify=self._store.verify(call), spent=self._store.spent(call),
            under=self._store.under(call),
        )  # fmt: skip
        self._feed(call)

    def _feed(self, call: str) -> None:
        """Hand inputs to the core, as many as a client may have there."""
        room = INPUTS_AHEAD_MAX - self._ahead[call]
        for number, payload in self._store.waiting(call, self._fed[call], room):
            self._fed[call] = number
            self._ahead[call] += 1
            self._caller.submit(ev.InputAdded(call, number, payload))

    def _cancel(self, call: str, reason: str) -> None:
        self._store.facts(call)
        failure = Failure.of(InputCancellation("The call was cancelled.", why=reason))
        lacking = self._store.lacking(call)
        self._store.finish((call, messages.SpawnedOutcome(0, number, failure=failure)) for number in lacking)
        for number in lacking:
            self.on_outcome(call, messages.SpawnedOutcome(0, number, failure=failure))
        if self._forget(call):
            self._caller.submit(ev.CallCancelled(call, reason))
        self._tell(call)

    def _lost(self, call: str) -> None:
        """What took errands is gone, and is not run again; its outcome may be on the way to the disk."""
        if not any(call == came for came, _ in self._came):
            self._cancel(call, "the machine that ran it is gone")

    def _forget(self, call: str) -> bool:
        """It runs no longer; returns whether it did."""
        self._errands.close(call)
        self._ahead.pop(call, None)
        self._functions.pop(call, None)
        self._shown.pop(call, None)
        self._judging.pop(call, None)
        return self._fed.pop(call, None) is not None

    def open_apps(self) -> list[str]:
        """The app of each call that runs."""
        return [function.app for function in self._functions.values()]

    def app_of(self, call: str) -> str:
        """Raises `NotFoundError`."""
        return self._store.facts(call).function.app

    def open_of(self, app: str) -> int:
        """How many calls of an app run."""
        return sum(function.app == app for function in self._functions.values())

    def cancel_app(self, app: str, reason: str) -> int:
        """End the calls of an app; returns how many there were."""
        calls = [call for call, function in self._functions.items() if function.app == app]
        for call in calls:
            self._cancel(call, reason)
        return len(calls)

    def cancel_call(self, call: str, reason: str) -> bool:
        """End one that runs; returns whether it did."""
        runs = call in self._fed
        if runs:
            self._cancel(call, reason)
        return runs

    def _tell(self, call: str) -> None:
        event = self._changed.pop(call, None)
        if event is not None:
            event.set()

    # The sink of calls

    def deliver(self, action: ev.Deliver) -> None:
        if action.call not in self._fed:
            return
        outcome = messages.SpawnedOutcome(0, action.index, action.payload, action.exception, action.failure)
        if action.payload == b"":
            outcome = messages.SpawnedOutcome(0, action.index, failure=NO_ITEMS)
        self._came.append((action.call, outcome))
        self._wake.set()

    def judge(self, action: ev.AskJudge) -> None:
        """It waits for a program that waits for results of the call, and can compare them."""
        if action.call in self._fed:
            self._judging[action.call][next(self._numbers)] = action
            self._tell(action.call)

    def item(self, action: ev.DeliverItem) -> None:
        """What a generator yields is not kept: see `NO_ITEMS`."""

    async def _record(self) -> None:
        """Write down what came, as much at once as there is: each transaction waits for the disk."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            came, self._came = self._came, []
            await self._write(came)
            for call, outcome in came:
                self.on_outcome(call, outcome)
            for call, count in Counter(call for call, _ in came).items():
                self._recorded_some(call, count)

    async def _write(self, came: list[tuple[str, messages.SpawnedOutcome]]) -> None:
        """Until it is done: the work was done, and must not be lost to a disk that is full for a while."""
        spent: dict[str, tuple[int, int]] = {}
        for call in {call for call, _ in came}:
            spent |= self._caller.core.budgets.spent(call)
        while True:
            try:
                return self._store.finish(came, spent)
            except StoreFullError as error:
                log.error("results wait until there is room: %s", error)
                await trio.sleep(DISK_PAUSE_S)

    def _recorded_some(self, call: str, count: int) -> None:
        self._tell(call)
        if call not in self._fed:
            return
        self._ahead[call] -= count
        # A batch at a time: each look at the table costs more than an input.
        if self._ahead[call] <= INPUTS_AHEAD_MAX // 2:
            self._feed(call)
        if not self._ahead[call]:
            self._forget(call)
            self._caller.submit(ev.InputsEnded(call))

    def ended(self, action: ev.CallEnded) -> None: ...

    def began(self, action: ev.Began) -> None: ...

    def taken(self, action: ev.DeliverTaken) -> None: ...

    def notice(self, action: ev.Notice) -> None: ...

    def log(self, call: str, index: int, message: InputLog) -> None:
        if function := self._functions.get(call):
            self.on_log(function.app, function.name, message)
        for show in self._shown.get(call, ()):
            show(message)

    async def drained(self) -> None: ...
