"""Apps on this node: deployed ones, whose functions are found by name, and those that clients run.

What a client runs or serves is kept with its connection (`ClientApps`), and so ends with it.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from potluck import wire
from potluck.errors import InputCancellation, InvalidError, NotFoundError
from potluck.wire import Failure, FunctionSpec, control
from potluck.wire import apps as messages
from potluck.wire.lease import InputLog
from potluck_node.app_logs import Logs
from potluck_node.clock import Clock
from potluck_node.core.admission import nonsense
from potluck_node.core.rollover import STRATEGIES
from potluck_node.core.schedules import check as check_schedule
from potluck_node.deployments import Deployment, Deployments
from potluck_node.named import Named
from potluck_node.schedules import Schedules

# How long a client may have a question for logs wait; it asks again.
LOGS_WAIT_US_MAX = 60_000_000
# As in `potluck.App`.
NAME_MAX = 64
# What one client runs or serves, which is one but for notebooks.
PER_CLIENT_MAX = 100
# Of a function with a schedule, whose name is in tables.
SCHEDULED_NAME_MAX = 128
# What people write into a history, in characters; a tag is a git hash or a word.
AUTHOR_MAX, TAG_MAX, COMMENT_MAX = 200, 64, 1000


@dataclass
class ClientApps:
    """What one client does. `pid` is its process, of which others may be connected too (one for each event loop);
    `number` is its own. By `want` it is asked for a function of an app that it runs, as (app, name)."""

    pid: int
    number: int = 0
    want: Callable[[str, str], None] = lambda app, name: None
    runs: dict[str, int] = field(default_factory=dict)
    serves: dict[str, Deployment] = field(default_factory=dict)
    # Why nothing more of an app is run for this client, which ran it when it was stopped.
    stopped: dict[str, Failure] = field(default_factory=dict)


class AppClient(Protocol):
    """One client, as `Apps` sees it."""

    @property
    def apps(self) -> ClientApps: ...
    def open_apps(self) -> Iterable[str]:
        """The app of each of its open calls."""
        ...

    def cancel_app(self, app: str, failure: Failure) -> int:
        """End its calls of an app; returns how many."""
        ...

    def cancel_call(self, call: str, failure: Failure) -> bool:
        """End one of its calls; returns whether it is one of them."""
        ...


class Spawned(Protocol):
    """The spawned calls."""

    def open_apps(self) -> Iterable[str]: ...
    def cancel_app(self, app: str, reason: str) -> int: ...
    def cancel_call(self, call: str, reason: str) -> bool: ...


class Apps:
    """Answers `messages.AppQuestion`s."""

    def __init__(
        self,
        deployments: Deployments,
        schedules: Schedules,
        spawned: Spawned,
        clients: Callable[[], Iterable[AppClient]],
        clock: Clock,
    ) -> None:
        self._deployments, self._spawned, self._clients, self._clock = deployments, spawned, clients, clock
        self.schedules = schedules
        self.logs = Logs()
        self.named = Named(lambda: [each.apps for each in clients()], spawned.open_apps, self._functions)
        # Where the gateway is reached, "" where it is turned off; raises `InvalidError`.
        self.web_base: Callable[[], Awaitable[str]] = _nowhere

    @property
    def _deployed(self) -> Mapping[str, Deployment]:
        return self._deployments.current

    async def answer(self, question: messages.AppQuestion, client: AppClient) -> wire.Message:
        """Raises `potluck.errors.Error`."""
        match question:
            case messages.DeployApp():
                return await self._deploy(question, client)
            case messages.NameFunctions():
                _check_name(question.app)
                self.named.add(client.apps, question.app, question.functions, question.failed)
                return control.Done(question.question)
            case messages.StartApp():
                self._start(question.app, client)
                return control.Done(question.question)
            case messages.AskApp():
                return await self._facts(question.question, question.app)
            case messages.AskApps():
                return messages.Apps(question.question, tuple(self._all()))
            case messages.AskAppLogs():
                return await self._logs(question)
            case messages.StopApp():
                return await self._stop(question)
            case messages.EndCall():
                return self._end_call(question)
            case messages.RollBack():
                _check_words(question.author, "", "", question.strategy)
                self._check_deployed(question.app)
                await self._deployments.roll_back(question)
                return await self._facts(question.question, question.app)
            case messages.AskSchedules():
                return await self.schedules.facts(question)
            case messages.RunSchedule():
                self._check_deployed(question.app)
                return await self.schedules.run_now(question)
            case messages.AskHistory():
                return await self._deployments.history(question)

    # Deployments

    async def _deploy(self, question: messages.DeployApp, client: AppClient) -> messages.AppFacts:
        _check(question)
        if _answers(question.functions):
            await self.web_base()
        if question.lasting:
            deployment = await self._deployments.deploy(question)
            return await self._describe(question.question, question.app, deployment)
        _check_room(question.app, client.apps.serves, PER_CLIENT_MAX, "deployed here")
        client.apps.serves[question.app] = Deployment(question.functions, self._clock.now_us())
        return await self._facts(question.question, question.app)

    async def _facts(self, question: int, app: str) -> messages.AppFacts:
        """What is being served comes before what is deployed: its author is at work on it."""
        found = self._served().get(app) or self._deployed.get(app)
        if found is None:
            self._deployments.check_known(app)
            raise self._unknown(app, [*self._served(), *self._deployed], "is deployed")
        return await self._describe(question, app, found)

    async def _describe(self, question: int, app: str, found: Deployment) -> messages.AppFacts:
        base = await self.web_base() if _answers(found.functions) else ""
        urls = tuple((each.name, f"{base}/{app}/{each.spec.web.label}") for each in found.functions if each.spec.web)
        state = "deployed" if found.version else "serving"
        return messages.AppFacts(
            question, app, found.functions, found.at_us, state, urls if base else (), found.version
        )

    def _check_deployed(self, app: str) -> None:
        self._deployments.check_known(app)
        if app not in self._deployed:
            raise self._unknown(app, self._deployed, "is deployed")

    def _functions(self, app: str) -> Iterable[messages.NamedFunction]:
        found = self._served().get(app) or self._deployed.get(app)
        return found.functions if found else ()

    def endpoint(self, app: str, label: str) -> FunctionSpec | None:
        """The function that answers requests there now."""
        found = self._served().get(app) or self._deployed.get(app)
        specs = (
            [each.spec for each in found.functions if each.spec.web and each.spec.web.label == label] if found else []
        )
        return specs[0] if specs else None

    def answering(self) -> bool:
        """Whether anything that is deployed answers requests."""
        return any(_answers(each.functions) for each in self._deployed.values())

    def _served(self) -> dict[str, Deployment]:
        """Of two that serve an app, the later counts: so a new version takes over before the old one goes."""
        served = [(each.at_us, app, each) for client in self._clients() for app, each in client.apps.serves.items()]
        return {app: each for _, app, each in sorted(served, key=lambda item: item[:2])}

    def _unknown(self, app: str, known: Iterable[str], what: str) -> NotFoundError:
        names = sorted(set(known))
        near = difflib.get_close_matches(app, names, 1)
        fix = f"Did you mean {near[0]}?" if near else "See `potluck app list`; or deploy it: `potluck deploy FILE.py`."
        return NotFoundError(f"No app named {app[:NAME_MAX]} {what} on this node.", fix=fix)

    # What goes on

    def _start(self, app: str, client: AppClient) -> None:
        _check_name(app)
        _check_room(app, client.apps.runs, PER_CLIENT_MAX, "run by this program")
        client.apps.runs[app] = self._clock.now_us()
        for each in self._clients():
            if each.apps.pid == client.apps.pid:
                each.apps.stopped.pop(app, None)

    def _all(self) -> Iterator[messages.AppStatus]:
        served, runs, calls = self._served(), self._runs(), self._calls()
        for app in sorted({*self._deployed, *served, *runs, *calls}):
            found = served.get(app) or self._deployed.get(app)
            state = _state(app in served, app in runs, app in self._deployed)
            since_us = found.at_us if found else runs.get(app, 0)
            deployed = self._deployed.get(app)
            version, tag = (deployed.version, deployed.tag) if deployed else (0, "")
            count = len(found.functions) if found else 0
            yield messages.AppStatus(app, state, since_us, count, calls[app], version, tag)

    def _runs(self) -> dict[str, int]:
        return {app: since for client in self._clients() for app, since in client.apps.runs.items()}

    def _calls(self) -> Counter[str]:
        calls = Counter(self._spawned.open_apps())
        for client in self._clients():
            calls.update(client.open_apps())
        return calls

    # Logs

    def heard(self, app: str, function: str, message: InputLog) -> None:
        """A function printed something."""
        self.logs.add(app, function, message, self._clock.now_us())

    async def _logs(self, question: messages.AskAppLogs) -> messages.AppLogs:
        app, wait_us = question.app, min(question.wait_us, LOGS_WAIT_US_MAX)
        if app and not wait_us and app not in self.logs.names() and not self._live(app):
            raise self._unknown(app, [*self._live_names(), *self.logs.names()], "has printed anything or runs")
        lines, missed = await self.logs.after(app, question.after, question.worker, wait_us)
        return messages.AppLogs(question.question, lines, missed, not app or self._live(app))

    def _live(self, app: str) -> bool:
        return app in self._live_names()

    def _live_names(self) -> set[str]:
        return {*self._deployed, *self._served(), *self._runs(), *self._calls()}

    # Stopping

    async def _stop(self, question: messages.StopApp) -> messages.AppStopped:
        app, reason = question.app, question.reason
        if not self._live(app):
            self._deployments.check_known(app)
            raise self._unknown(app, self._live_names(), "runs or is deployed")
        failure = Failure.of(InputCancellation(f"The app {app} was stopped.", why=reason))
        self._mark_stopped(app, failure)
        served = self._served()
        # First of all, so that nothing of it is called anew.
        deployed = await self._forget(app) or app in served
        calls = self._spawned.cancel_app(app, reason)
        calls += sum(client.cancel_app(app, failure) for client in self._clients())
        return messages.AppStopped(question.question, calls, deployed)

    def _end_call(self, question: messages.EndCall) -> control.Done:
        call, reason = question.call, question.reason
        failure = Failure.of(InputCancellation("The call was cancelled.", why=reason))
        ended = self._spawned.cancel_call(call, reason) or any(
            client.cancel_call(call, failure) for client in self._clients()
        )
        if not ended:
            raise NotFoundError(
                f"No open call {call[:NAME_MAX]} of a program, and no spawned one, is on this node.",
                fix="See `potluck call list`; what a function called ends with the call that it works for.",
            )
        return control.Done(question.question)

    def _mark_stopped(self, app: str, failure: Failure) -> None:
        """A program that runs the app gets no further calls of it; one that found it by its name may find it again."""
        running = {client.apps.pid for client in self._clients() if app in client.apps.runs}
        for client in self._clients():
            if client.apps.pid in running:
                client.apps.runs.pop(app, None)
                client.apps.stopped[app] = failure

    async def _forget(self, app: str) -> bool:
        for client in self._clients():
            client.apps.serves.pop(app, None)
        return await self._deployments.forget(app)


def _state(served: bool, runs: bool, deployed: bool) -> str:
    if served:
        return "serving"
    return "running" if runs else "deployed" if deployed else "detached"


async def _nowhere() -> str:
    return ""


def _answers(functions: Iterable[messages.NamedFunction]) -> bool:
    return any(each.spec.web for each in functions)


def _check(question: messages.DeployApp) -> None:
    """Raises `InvalidError`."""
    _check_name(question.app)
    _check_words(question.author, question.tag, question.comment, question.strategy)
    names = [function.name for function in question.functions]
    if not names or len(names) > messages.FUNCTIONS_MAX or len(set(names)) < len(names):
        raise InvalidError(
            f"The app {question.app} cannot be deployed.",
            why=f"it has {len(names)} functions and classes, {len(set(names))} of them with names of their own",
            fix=f"Give it from 1 to {messages.FUNCTIONS_MAX}, each under another name.",
        )
    labels = [each.spec.web.label for each in question.functions if each.spec.web]
    if twice := {label for label in labels if labels.count(label) > 1}:
        raise InvalidError(
            f"The app {question.app} cannot be deployed.",
            why=f"several of its functions answer at {', '.join(sorted(twice))}",
            fix="Give each a label= of its own.",
        )
    for function in question.functions:
        if function.schedule:
            _check_schedule(function, question.lasting)
        if problem := nonsense(function.spec):
            raise InvalidError(f"{function.name[:NAME_MAX]} cannot be deployed.", why=problem)


def _check_schedule(function: messages.NamedFunction, lasting: bool) -> None:
    assert function.schedule
    if lasting and (function.spec.web or function.methods or len(function.name) > SCHEDULED_NAME_MAX):
        raise InvalidError(
            f"{function.name[:NAME_MAX]} cannot run by itself.", fix="Schedule a function of a short name."
        )
    check_schedule(function.schedule)


def _check_words(author: str, tag: str, comment: str, strategy: str) -> None:
    if strategy not in STRATEGIES:
        raise InvalidError(f"{strategy[:NAME_MAX]!r} is no strategy.", fix=f"There are: {', '.join(STRATEGIES)}.")
    for what, given, limit in (
        ("author", author, AUTHOR_MAX),
        ("tag", tag, TAG_MAX),
        ("comment", comment, COMMENT_MAX),
    ):
        if len(given) > limit or not given.isprintable():
            raise InvalidError(f"This {what} cannot be kept.", fix=f"Use one line of at most {limit} characters.")


def _check_room(app: str, there: Collection[str], limit: int, how: str) -> None:
    if app not in there and len(there) >= limit:
        raise InvalidError(f"{limit} apps are {how} already.", fix="End some first: potluck app stop APP")


def _check_name(app: str) -> None:
    if not re.fullmatch(rf"[A-Za-z0-9_.-]{{1,{NAME_MAX}}}", app):
        raise InvalidError(f"{app[:NAME_MAX]!r} is not a name for an app.")
