"""Functions by their names, for calls from inside others: those of programs that run an app, and deployed ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from potluck.errors import InvalidError
from potluck.wire import FunctionSpec
from potluck.wire.apps import FUNCTIONS_MAX, NamedFunction
from potluck_node.core.admission import nonsense

# Programs that have named functions of an app; those that are gone are kept while calls that they spawned go on.
RUNS_MAX = 4096


@dataclass
class _Run:
    """What one program said of one of its apps."""

    client: int
    app: str
    functions: dict[str, NamedFunction] = field(default_factory=dict)


class Named:
    """`alive` says which clients are connected and `open_apps` of which apps spawned calls run; `deployed` finds what
    is served or deployed under an app's name."""

    def __init__(
        self, alive: Callable[[], Collection[int]], open_apps: Callable[[], Iterable[str]],
        deployed: Callable[[str], Iterable[NamedFunction]],
    ) -> None:  # fmt: skip
        self._alive, self._open_apps, self._deployed = alive, open_apps, deployed
        self._runs: list[_Run] = []

    def add(self, client: int, app: str, functions: Iterable[NamedFunction]) -> None:
        """A program names functions of an app that it runs. Raises `InvalidError`."""
        run = next((each for each in self._runs if (each.client, each.app) == (client, app)), None)
        if run is None:
            self._prune()
            run = _Run(client, app)
            self._runs.append(run)
        for each in functions:
            if problem := nonsense(each.spec):
                raise InvalidError(f"{each.name[:64]} cannot be called.", why=problem)
            run.functions[each.name] = each
        if len(run.functions) > FUNCTIONS_MAX:
            raise InvalidError(f"An app has more than {FUNCTIONS_MAX} functions.", fix="Divide it.")

    def _prune(self) -> None:
        alive, apps = set(self._alive()), set(self._open_apps())
        self._runs = [each for each in self._runs if each.client in alive or each.app in apps][-RUNS_MAX + 1 :]

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
