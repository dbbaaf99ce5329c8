"""Functions by their names, for calls from inside others: those of programs that run an app, and deployed ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import trio

from potluck.errors import InvalidError, RefusedError
from potluck.wire import Failure, FunctionSpec
from potluck.wire.apps import FUNCTIONS_MAX, NamedFunction
from potluck_node.core.admission import nonsense

# Programs that have named functions of an app; those that are gone are kept while calls that they spawned go on.
RUNS_MAX = 4096


# How long a program may take to build the image of a function that is wanted, seconds; and how often it is looked
# whether it is still there.
WANT_S, LOOK_S = 1800.0, 5.0
# Names that a program is asked for at once, and failures of these that are remembered, for so many seconds: workers may
# ask for anything, and each costs the program a thread.
WANTS_MAX, FAILED_S = 64, 5.0


class Client(Protocol):
    """A connection of a program; all of its process may be asked for what one has named."""

    @property
    def pid(self) -> int: ...
    @property
    def number(self) -> int: ...
    @property
    def want(self) -> Callable[[str, str], None]: ...


@dataclass
class _Run:
    """What one program said of one of its apps, and is asked for. `failed` has a time, too; `news` is replaced whenever
    it says more."""

    client: int
    pid: int
    app: str
    functions: dict[str, NamedFunction] = field(default_factory=dict)
    failed: dict[str, tuple[Failure, float]] = field(default_factory=dict)
    wanted: set[str] = field(default_factory=set)
    news: trio.Event = field(default_factory=trio.Event)


class Named:
    """`clients` are connected, `open_apps` those of which spawned calls run; `deployed` finds what is served or
    deployed under an app's name."""

    def __init__(
        self, clients: Callable[[], Iterable[Client]], open_apps: Callable[[], Iterable[str]],
        deployed: Callable[[str], Iterable[NamedFunction]],
    ) -> None:  # fmt: skip
        self._clients, self._open_apps, self._deployed = clients, open_apps, deployed
        self._runs: list[_Run] = []

    def add(
        self, client: Client, app: str, functions: Iterable[NamedFunction],
        failed: Iterable[tuple[str, Failure]] = (),
    ) -> None:  # fmt: skip
        """A program names functions of an app that it runs. Raises `InvalidError`."""
        run = next((each for each in self._runs if (each.client, each.app) == (client.number, app)), None)
        if run is None:
            self._prune()
            run = _Run(client.number, client.pid, app)
            self._runs.append(run)
        for each in functions:
            if problem := nonsense(each.spec):
                raise InvalidError(f"{each.name[:64]} cannot be called.", why=problem)
            run.functions[each.name] = each
            run.wanted.discard(each.name)
        for name, failure in failed:
            run.failed.pop(name, None)
            run.failed[name] = failure, trio.current_time()
            run.wanted.discard(name)
        for name in list(run.failed)[:-WANTS_MAX]:
            del run.failed[name]
        if len(run.functions) > FUNCTIONS_MAX:
            raise InvalidError(f"An app has more than {FUNCTIONS_MAX} functions.", fix="Divide it.")
        run.news.set()
        run.news = trio.Event()

    def _prune(self) -> None:
        alive, apps = {each.number for each in self._clients()}, set(self._open_apps())
        self._runs = [each for each in self._runs if each.client in alive or each.app in apps][-RUNS_MAX + 1 :]

    def can_want(self, asking: FunctionSpec, app: str) -> bool:
        """Whether there is a program that may know more of the app."""
        return self._program(asking, app) is not None

    def _program(self, asking: FunctionSpec, app: str) -> _Run | None:
        alive = {each.number for each in self._clients()}
        clients = [each.client for each in reversed(self._runs) if _has(each, asking) and each.client in alive]
        return next((run for run in self._runs if clients and (run.client, run.app) == (clients[0], app)), None)

    async def want(self, asking: FunctionSpec, app: str, name: str) -> None:
        """Have the program that has the function which asks name another one. Raises its error, or none if it is gone
        or does not answer."""
        run = self._program(asking, app)
        if run is None:
            return
        self._check_failed(run, name)
        if name not in run.wanted:
            self._ask(run, name)
        with trio.move_on_after(WANT_S):
            while name in run.wanted and self._program(asking, app) is run:
                with trio.move_on_after(LOOK_S):
                    await run.news.wait()
        self._check_failed(run, name)

    def _ask(self, run: _Run, name: str) -> None:
        if len(run.wanted) >= WANTS_MAX:
            raise RefusedError(f"The program is asked for {WANTS_MAX} functions of {run.app} already.")
        run.wanted.add(name)
        for client in self._clients():
            if client.pid == run.pid:
                client.want(run.app, name)

    @staticmethod
    def _check_failed(run: _Run, name: str) -> None:
        failure, at_s = run.failed.get(name, (None, 0.0))
        if failure and trio.current_time() - at_s < FAILED_S:
            raise failure.error()

    def found(self, app: str, name: str) -> NamedFunction | None:
        """What is served or deployed."""
        return next((each for each in self._deployed(app) if each.name == name), None)

    def own(self, asking: FunctionSpec, app: str, name: str) -> NamedFunction | None:
        """A function of the program that has the one which asks, the latest first; else of what is deployed, where the
        app may have another name than in its source."""
        clients = [each.client for each in reversed(self._runs) if _has(each, asking)]
        for client in clients:
            for run in self._runs:
                if (run.client, run.app) == (client, app) and name in run.functions:
                    return run.functions[name]
        return None if clients else self.found(asking.app, name)


def _has(run: _Run, spec: FunctionSpec) -> bool:
    """Whether the code of `spec` is among the functions, be it with other settings."""
    return run.app == spec.app and any(_code(each.spec) == _code(spec) for each in run.functions.values())


def _code(spec: FunctionSpec) -> tuple[str, str, str, str, bytes]:
    return spec.python, spec.image, spec.module, spec.qualname, spec.pickled
