"""Functions of which workers are to be held up though nobody calls, and how many. Part of the call core."""

from __future__ import annotations

from collections.abc import Callable

from potluck.errors import ExecutionError
from potluck.wire import Failure, FunctionSpec, function_id
from potluck_node.core import events as ev
from potluck_node.core.demand import Function
from potluck_node.core.hiring import Hiring


class Keeping:
    """`act` takes an action; `find` gives a function's demand, and begins to know it."""

    def __init__(
        self, hiring: Hiring, act: Callable[[ev.Action], None], find: Callable[[FunctionSpec, int], Function]
    ) -> None:
        self._hiring, self._act, self._find = hiring, act, find
        self._kept: dict[str, set[str]] = {}

    def handlers(self) -> dict[type, Callable[..., None]]:
        """By event."""
        return {
            ev.FunctionKept: self._function_kept,
            ev.FunctionLeft: self._function_left,
            ev.ScalingSet: self._scaling_set,
        }

    def _function_kept(self, event: ev.FunctionKept, now_us: int) -> None:
        function = self._find(event.function, now_us)
        function.scaling = event.function.scaling
        function.keepers.add(event.holder)
        if warm := [lease for lease in self._hiring.of(function) if lease.warm]:
            self.stands(function, min(lease.trouble for lease in warm))
        self._kept.setdefault(event.holder, set()).add(function.name)
        self._hiring.pump(function, now_us)

    def _function_left(self, event: ev.FunctionLeft, now_us: int) -> None:
        for name in sorted(self._kept.pop(event.holder, ())):
            function = self._hiring.functions.get(name)
            if function:
                function.keepers.discard(event.holder)
                self._hiring.pump(function, now_us)

    def _scaling_set(self, event: ev.ScalingSet, now_us: int) -> None:
        function = self._hiring.functions.get(function_id(event.function))
        if function:
            function.scaling = event.scaling
            self._hiring.pump(function, now_us)

    def stands(self, function: Function, trouble: str) -> None:
        """A worker is ready; with `trouble`, to say that it could not start."""
        failed = Failure.of(ExecutionError(f"{function.spec.name} cannot start.", why=trouble)) if trouble else None
        self._act(ev.Standing(function.name, failed))
