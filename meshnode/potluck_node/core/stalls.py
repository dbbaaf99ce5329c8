"""Peers at which inputs run out of time while others answer. Pure. Part of the call core.

Who grants leases and computes nothing is paid up to each timeout, and "it ran too long" is what an honest machine says
of a slow function. So that counts against a peer only for functions which somebody else answers, only until it answers
something itself, and not when the input runs out of time elsewhere, too: then it is the input.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from potluck.wire import FunctionSpec
from potluck.wire.lease import InputDone
from potluck_node.core.demand import Input, Lease

# So many inputs in a row that ran out, and nothing is left to a peer: of honest ones where one input in ten does, that
# happens once in a thousand times.
SILENT_MAX = 3
# It is avoided for so many timeouts, twice as long the next two times: of its time, a fifth at first and a seventeenth
# later is paid for nothing. Not for longer than an hour, since machines are mended.
PUT_OFF_FACTOR, PUT_OFF_DOUBLED, PUT_OFF_MAX_US = 4, 2, 3_600_000_000
# Peers and functions of which something is remembered.
PEERS_MAX, FUNCTIONS_MAX = 10_000, 1024


@dataclass(slots=True)
class _Known:
    """Of one function: who answered it, the last two; and how many inputs ran out where, as long as nobody else has
    answered."""

    answered: tuple[str, ...] = ()
    open: dict[str, int] = field(default_factory=dict)


def ran_out(done: InputDone, spec: FunctionSpec) -> bool:
    """Whether an input failed after so long that it is all the same why its provider says it did."""
    if done.failure is None or done.lost:
        return False
    return done.failure.kind == "timeout" or 2 * done.run_us >= spec.timeout_us


class Stalls:
    def __init__(self) -> None:
        self._silent: OrderedDict[str, int] = OrderedDict()
        self._functions: OrderedDict[str, _Known] = OrderedDict()

    @property
    def doubts(self) -> bool:
        """Whether there is doubt about anybody."""
        return bool(self._silent)

    def is_doubtful(self, peer: str) -> bool:
        """Whether the last input ran out there: a second one at a time would be too many."""
        return peer in self._silent

    def has_answered(self, peer: str) -> bool:
        """Whether nothing ran out there since its last answer: else that it bills what we saw says nothing good."""
        return peer not in self._silent and not any(peer in known.open for known in self._functions.values())

    def is_silent(self, peer: str) -> bool:
        """Whether so many in a row did that nothing is left to it."""
        return self._silent.get(peer, 0) >= SILENT_MAX

    def avoids(self, function: str, peer: str) -> bool:
        """Whether the function is better left to those who answer it."""
        return self.is_doubtful(peer) and self._answered_by_others(function, peer)

    def put_off_us(self, peer: str, spec: FunctionSpec) -> int:
        """For how long, since an input of this function ran out there."""
        doubled = min(max(0, self._silent.get(peer, 0) - 1), PUT_OFF_DOUBLED)
        return min(PUT_OFF_FACTOR * spec.timeout_us << doubled, PUT_OFF_MAX_US)

    def answered_by(self, function: str) -> tuple[str, ...]:
        """The last two peers that answered the function."""
        known = self._functions.get(function)
        return known.answered if known else ()

    def ended(self, lease: Lease, item: Input | None, done: InputDone, spec: FunctionSpec) -> list[str]:
        """An input ended, one way or another; returns who is to be avoided for what is known now."""
        if ran_out(done, spec):
            return self._ran_out(lease.function, lease.peer, item)
        if done.lost or done.failure is not None:
            return []
        return self._answered(lease.function, lease.peer, item)

    def overtaken(self, peer: str) -> None:
        """An input that had been there for long was answered elsewhere, where it was sent later."""
        self._counted({peer: 1})

    def _ran_out(self, function: str, peer: str, item: Input | None) -> list[str]:
        others = [each for each in item.ran_out if each != peer] if item else []
        if item:
            item.ran_out = (*others, peer)
        if others:
            self._silent = OrderedDict(
                (each, times - (each in others)) for each, times in self._silent.items() if times > (each in others)
            )
            return []
        if self._answered_by_others(function, peer):
            return self._counted({peer: 1})
        known = self._known(function)
        known.open[peer] = known.open.get(peer, 0) + 1
        return []

    def _answered(self, function: str, peer: str, item: Input | None) -> list[str]:
        self._silent.pop(peer, None)
        known = self._known(function)
        known.answered = (*(each for each in known.answered[-1:] if each != peer), peer)
        known.open.pop(peer, None)
        late = self._counted(known.open)
        known.open.clear()
        # The very input that ran out there was answered here.
        proven = {each: 1 for each in (item.ran_out if item else ()) if each not in (peer, *late)}
        return [*late, *self._counted(proven)]

    def _counted(self, times: dict[str, int]) -> list[str]:
        """Returns who they are."""
        for peer, more in times.items():
            self._silent[peer] = self._silent.pop(peer, 0) + more
        while len(self._silent) > PEERS_MAX:
            self._silent.popitem(last=False)
        return list(times)

    def _answered_by_others(self, function: str, peer: str) -> bool:
        known = self._functions.get(function)
        return known is not None and any(each != peer for each in known.answered)

    def _known(self, function: str) -> _Known:
        known = self._functions.setdefault(function, _Known())
        self._functions.move_to_end(function)
        if len(self._functions) > FUNCTIONS_MAX:
            self._functions.popitem(last=False)
        return known
