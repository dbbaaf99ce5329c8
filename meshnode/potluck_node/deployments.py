"""Deployed apps: the versions in the database of shared state, and on this node what is in charge of each.

A version takes over as `core.rollover` decides. What other nodes of the same database put in charge is followed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Protocol

import msgspec
import trio
from msgspec.structs import replace

from potluck import wire
from potluck.errors import Error, ExecutionError, NotFoundError, RefusedError
from potluck.wire import FunctionSpec, function_id
from potluck.wire import apps as messages
from potluck_node.clock import Clock
from potluck_node.core import events as ev
from potluck_node.core import rollover
from potluck_node.locks import unlocked
from potluck_node.state import app_versions as versions
from potluck_node.state.app_key import AppKey
from potluck_node.state.app_schedules import encoded
from potluck_node.state.service import State
from potluck_node.state.work import Work

if TYPE_CHECKING:
    from trio_typing import TaskStatus

_CONTEXT = "deployed functions"
# While a database is away, seconds between two tries to learn what is deployed.
RETRY_S = 1.0
_encoder = msgspec.msgpack.Encoder()


@dataclass(frozen=True)
class Deployment:
    """What an app is now. `version` is 0 for what is only served; `node` is the one that put it in charge."""

    functions: tuple[messages.NamedFunction, ...]
    at_us: int
    version: int = 0
    tag: str = ""
    node: str = ""

    @cached_property
    def ids(self) -> frozenset[str]:
        return frozenset(function_id(each.spec) for each in self.functions)


class Workers(Protocol):
    """The caller's side, as far as it concerns what is deployed."""

    def submit(self, event: ev.FunctionKept | ev.FunctionLeft | ev.ScalingSet) -> None: ...
    def running(self, app: str) -> list[FunctionSpec]: ...
    def warm(self) -> Iterable[str]:
        """Ids of functions that have workers standing by, anywhere."""
        ...


@dataclass
class _Roll:
    """A version on its way. `core` decides; `result` says how it ended."""

    core: rollover.Rollover
    events: list[rollover.Event] = field(default_factory=list)
    changed: trio.Event = field(default_factory=trio.Event)

    def tell(self, event: rollover.Event) -> None:
        self.events.append(event)
        self.changed.set()


class Deployments:
    """`node` is the peer id. `retired` is told the ids of functions that are deployed no more, and for how many seconds
    their WebSockets may stay open."""

    def __init__(self, state: State, key: AppKey, node: str, workers: Workers, clock: Clock) -> None:
        self._state, self._key, self._node, self._workers, self._clock = state, key, node, workers, clock
        self.current: dict[str, Deployment] = {}
        # Told of what is in charge of an app now, if anything.
        self.changed: list[Callable[[str, Deployment | None], None]] = []
        self.retired: Callable[[frozenset[str], float], None] = lambda ids, drain_s: None
        self._rolls: dict[str, _Roll] = {}
        self._locked: set[str] = set()
        self._nursery: trio.Nursery | None = None
        self._news, self._following = trio.Event(), trio.Lock()
        state.on_apps.append(lambda: self._news.set())

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Know what is deployed, and follow it until cancelled. Raises `potluck.errors.Error` when that cannot be."""
        await self._state.transact(lambda work: versions.give_up_all(work, self._node))
        await self._follow()
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            while True:
                await self._news.wait()
                self._news = trio.Event()
                try:
                    await self._follow()
                except Error:
                    await trio.sleep(RETRY_S)
                    self._news.set()

    async def _follow(self) -> None:
        """Learn what is in charge now, and act on it."""
        async with self._following:
            known = {app: each.version for app, each in self.current.items()}
            found = await self._state.transact(partial(self._read, known=known))
            for app in known.keys() - found.keys():
                self._change(app, None)
            for app, each in found.items():
                if each.functions is not None and (opened := self._opened(app, each)):
                    self._change(app, opened)

    def _read(self, work: Work, known: dict[str, int]) -> dict[str, versions.InCharge]:
        self._key.share(work)
        return versions.all_in_charge(work, known)

    def _opened(self, app: str, found: versions.InCharge) -> Deployment | None:
        if self._key.vault is None or found.functions is None:
            self._locked.add(app)
            return None
        self._locked.discard(app)
        functions = self._functions(found.functions)
        return Deployment(functions, found.at_us, found.number, found.tag, found.node)

    def _functions(self, locked: bytes) -> tuple[messages.NamedFunction, ...]:
        if self._key.vault is None:
            raise _no_key()
        return wire.decode(unlocked(self._key.vault, locked, _CONTEXT), tuple[messages.NamedFunction, ...])

    def _change(self, app: str, new: Deployment | None) -> None:
        old = self.current.pop(app, None)
        if new:
            self.current[app] = new
        self._workers.submit(ev.FunctionLeft(_holder(app)))
        for each in new.functions if new else ():
            # Which objects of a class with parameters will be called, nobody knows.
            if each.spec.scaling.min_containers and not each.parameters:
                self._workers.submit(ev.FunctionKept(_holder(app), each.spec))
        for tell in self.changed:
            tell(app, new)
        if old and new:
            self.retired(old.ids - new.ids, rollover.DRAIN_S)

    def find(self, app: str, function: str) -> FunctionSpec | None:
        """A function as it is deployed now, under its name."""
        deployment = self.current.get(app)
        found = [each.spec for each in deployment.functions if each.name == function] if deployment else []
        return found[0] if found else None

    def check_known(self, app: str) -> None:
        """Raises `RefusedError` for an app that is deployed, but not readable here."""
        if app in self._locked:
            raise _no_key()

    # Deploying

    async def deploy(self, question: messages.DeployApp) -> Deployment:
        """Put a new version in charge. Goes on when nobody waits for it any more. Raises `potluck.errors.Error`, and
        then the version before is still in charge."""
        return await self._version(question.app, question.functions, question.strategy, self._proposal(question))

    async def roll_back(self, question: messages.RollBack) -> Deployment:
        """The same with an earlier version. Raises `NotFoundError`."""
        app = question.app
        number = question.version or await self._state.transact(lambda work: versions.before(work, app))
        row = await self._state.transact(lambda work: versions.find(work, app, number))
        functions = self._functions(bytes(row.functions))
        proposal = versions.Proposal(
            app, bytes(row.functions), question.author, self._node, row.tag, row.comment, row.digest,
            bytes(row.schedules), number,
        )  # fmt: skip
        return await self._version(app, functions, question.strategy, proposal)

    def _proposal(self, question: messages.DeployApp) -> versions.Proposal:
        if self._key.vault is None:
            raise _no_key()
        locked = self._key.vault.lock(_encoder.encode(question.functions), _CONTEXT)
        given = (question.author, self._node, question.tag, question.comment)
        schedules = {each.name: each.schedule for each in question.functions if each.schedule}
        return versions.Proposal(question.app, locked, *given, digest(question.functions), encoded(schedules))

    async def _version(
        self, app: str, functions: tuple[messages.NamedFunction, ...], strategy: str, proposal: versions.Proposal
    ) -> Deployment:
        assert self._nursery, "deployments are not being served"
        needs = self._needs(app, functions) if strategy == rollover.ROLLING else {}
        ended, result = trio.Event(), list[Error]()

        async def go() -> None:
            try:
                await self._roll_out(app, needs, proposal)
                if strategy == rollover.RECREATE and old and (new := self.current.get(app)):
                    self.retired(old.ids - new.ids, 0)
            except Error as error:
                result.append(error)
            finally:
                ended.set()

        old = self.current.get(app)
        self._nursery.start_soon(go)
        await ended.wait()
        if result:
            raise result[0]
        if app not in self.current:
            raise NotFoundError(f"The app {app} was stopped meanwhile.")
        return self.current[app]

    def _needs(self, app: str, functions: tuple[messages.NamedFunction, ...]) -> dict[str, FunctionSpec]:
        old = self.current.get(app)
        if old is None:
            return {}
        return rollover.needed(old.functions, functions, self._workers.running(app), self._workers.warm())

    async def _roll_out(self, app: str, needs: dict[str, FunctionSpec], proposal: versions.Proposal) -> None:
        number = await self._state.transact(lambda work: versions.propose(work, proposal))
        roll = _Roll(rollover.Rollover(needs, self._clock.now_us()))
        if before := self._rolls.get(app):
            before.tell(rollover.Superseded())
        self._rolls[app] = roll
        try:
            self._warm(app, number, needs)
            roll.tell(rollover.Tick())
            await self._drive(app, number, roll)
        finally:
            if self._rolls.get(app) is roll:
                del self._rolls[app]
            self._workers.submit(ev.FunctionLeft(_warmer(app, number)))
            for spec in needs.values():
                self._workers.submit(ev.ScalingSet(spec, spec.scaling))

    def _warm(self, app: str, number: int, needs: dict[str, FunctionSpec]) -> None:
        for spec in needs.values():
            scaling = replace(spec.scaling, min_containers=max(1, spec.scaling.min_containers))
            self._workers.submit(ev.FunctionKept(_warmer(app, number), replace(spec, scaling=scaling)))

    async def _drive(self, app: str, number: int, roll: _Roll) -> None:
        while not roll.core.ended:
            wake_us = roll.core.wake_us
            left_s = (wake_us - self._clock.now_us()) / 1e6 if wake_us else float("inf")
            with trio.move_on_after(max(0, left_s)):
                await roll.changed.wait()
            roll.changed = trio.Event()
            events, roll.events = roll.events or [rollover.Tick()], []
            for event in events:
                for action in roll.core.handle(event, self._clock.now_us()):
                    await self._do(app, number, roll, action)

    async def _do(self, app: str, number: int, roll: _Roll, action: rollover.Action) -> None:
        if isinstance(action, rollover.TakeOver):
            done = await self._state.transact(lambda work: versions.take_over(work, app, number))
            roll.tell(rollover.Recorded(done))
        elif isinstance(action, rollover.Retire):
            await self._follow()
        else:
            await self._state.transact(lambda work: versions.give_up(work, app, number, action.why))
            current = self.current.get(app)
            still = f"Version {current.version} still answers; see" if current else "See"
            raise ExecutionError(
                f"Version {number} of {app} does not take over.",
                why=action.why,
                fix=f"{still} `potluck app logs {app}` and `potluck app history {app}`.",
            )

    def standing(self, standing: ev.Standing) -> None:
        """A function that is kept has a worker, or can have none."""
        failure = standing.failure
        event = rollover.Cold(standing.function, f"{failure.what} {failure.why}".strip()) if failure else None
        for roll in self._rolls.values():
            roll.tell(event or rollover.Warm(standing.function))

    # The rest

    async def history(self, question: messages.AskHistory) -> messages.AppHistory:
        """Raises `NotFoundError`."""
        app = question.app
        current, rows = await self._state.transact(lambda work: versions.history(work, app))
        if not rows:
            raise NotFoundError(f"No app named {app} was deployed here.", fix="See `potluck app list`.")
        facts = [
            messages.VersionFacts(
                row.number, row.at_us, _state(row, current), row.author, row.tag, row.comment, row.digest, row.source,
                row.why,
            )
            for row in rows
        ]  # fmt: skip
        return messages.AppHistory(question.question, app, tuple(facts))

    async def forget(self, app: str) -> bool:
        """Remove an app and its history; returns whether it was deployed."""
        found = await self._state.transact(lambda work: versions.forget(work, app))
        self._locked.discard(app)
        await self._follow()
        return found


def digest(functions: tuple[messages.NamedFunction, ...]) -> str:
    """What is deployed, in hex; secrets do not show in it."""
    plain = [replace(each, spec=replace(each.spec, secrets=(), salt=b"")) for each in functions]
    return hashlib.sha256(_encoder.encode(plain)).hexdigest()


def _state(row: object, current: int) -> str:
    number, state = getattr(row, "number", 0), getattr(row, "state", "")
    if number == current:
        return "current"
    return "past" if state == versions.SERVED else state


def _holder(app: str) -> str:
    """Who keeps its workers, in the caller's core."""
    return f"app {app}"


def _warmer(app: str, number: int) -> str:
    """Who has the first workers of a version started."""
    return f"app {app} {number}"


def _no_key() -> RefusedError:
    return RefusedError(
        "This node cannot read what is deployed in the database that it shares.",
        why="no node that has the key has handed it over",
        fix="Name this node's peer id in the setting `trust` of a node on which the app was deployed, and start that.",
    )
