"""What the outside may ask of the call core. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from potluck.wire import FunctionSpec, function_id
from potluck_node.core.checking import Checking
from potluck_node.core.demand import Call, Function, Input, Lease
from potluck_node.core.hiring import Hiring


class Views:
    """The part of the core that changes nothing, but for what was measured."""

    checking: Checking
    rtt_us: dict[str, int]
    _calls: dict[str, Call]
    _inputs: dict[int, Input]
    _hiring: Hiring
    _functions: dict[str, Function]
    _leases: dict[str, Lease]

    def calls(self) -> Iterator[tuple[str, str, int, int, str, str]]:
        """(call, function name, inputs, waiting inputs, what it waits for, app) of each open call."""
        for name, call in self._calls.items():
            function = self._functions[call.function]
            spec, waiting = function.spec, self.checking.awaited(call)
            yield name, spec.name, call.total, waiting, function.note[1], spec.app

    def heard(self, peer: str, rtt_us: int) -> None:
        """A round trip was measured: the mean of the last few counts."""
        known = self.rtt_us.get(peer)
        self.rtt_us[peer] = rtt_us if known is None else (3 * known + rtt_us) // 4

    def would(self, call: str, now_us: int) -> tuple[str, ...]:
        """A line for each peer: why it runs this call, or does not."""
        return self._hiring.would(self._functions[self._calls[call].function], now_us)

    def speaks_for(self, peer: str) -> bool:
        """Whether a receipt that we signed says something good of the peer: not when it billed what ran out of time."""
        return self._hiring.stalls.has_answered(peer)

    def stats(self, spec: FunctionSpec) -> tuple[int, int]:
        """(inputs that wait for a worker, workers that run or are held up) of a function, as far as we called it."""
        function = self._functions.get(function_id(spec))
        return self._hiring.stats(function) if function else (0, 0)

    def running(self, app: str) -> list[FunctionSpec]:
        """Functions of an app that have workers for us."""
        known = [each for each in self._functions.values() if each.spec.app == app]
        return [each.spec for each in known if any(lease.warm for lease in self._hiring.of(each))]

    def leases(self) -> Iterator[tuple[str, str, int, int]]:
        """(lease, peer, slots, inputs under way) of each lease."""
        for name, lease in self._leases.items():
            yield name, lease.peer, lease.slots, len(lease.inputs)

    def input_of(self, number: int) -> tuple[str, int] | None:
        """(call, index) of an input that is still awaited."""
        item = self._inputs.get(number)
        return (item.call, item.index) if item else None

    def place_of(self, number: int) -> tuple[str, int]:
        """(call, number) of an input as its worker is told: by the index it could tell known answers from the rest."""
        item = self._inputs.get(number)
        return (item.call, item.case.number if item.case else item.index) if item else ("", 0)

    def shown_of(self, number: int) -> tuple[str, int] | None:
        """As `input_of`, of what prints for whoever called: of several replicas one, and no known answers."""
        item = self._inputs.get(number)
        return self.input_of(number) if item and (item.case is None or item.case.shows(number)) else None

    def runs(self, lease: str, number: int) -> bool:
        """Whether an input is with a lease."""
        found = self._leases.get(lease)
        return found is not None and number in found.inputs
