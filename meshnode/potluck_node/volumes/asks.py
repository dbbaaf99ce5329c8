"""What the provider's own node asks of a caller's node, along the lease on which its workers ask, too."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio

from potluck.errors import RefusedError
from potluck.wire.state import StateAsked, StateDropped, StateTold
from potluck_node.core.relay import Origin, Relay


@dataclass
class _Waiting:
    told: trio.Event = field(default_factory=trio.Event)
    answer: StateTold | None = None


class NodeAsks:
    """Shares the relay's numbers with the workers. `post` puts a message on a lease and says whether that is open."""

    def __init__(self, relay: Relay, post: Callable[[str, StateAsked | StateDropped], bool]) -> None:
        self._relay, self._post = relay, post
        self._numbers = itertools.count(1)
        self._waiting: dict[Origin, _Waiting] = {}

    async def ask(self, pool: str, worker: str, leases: Sequence[str], payload: bytes) -> bytes:
        """The answer. Raises `potluck.errors.Error`: what was refused, or that there is no way to the caller now."""
        # No worker has this name.
        origin = Origin(pool, f"node/{worker}", next(self._numbers))
        waiting = self._waiting[origin] = _Waiting()
        try:
            if not any(self._sent(origin, lease, payload) for lease in leases):
                raise RefusedError("There is no way to the caller's node now.", fix="Ask while an input runs.")
            await waiting.told.wait()
        finally:
            del self._waiting[origin]
            if passed := self._relay.dropped(origin):
                self._post(passed.lease, StateDropped(passed.number))
        answer = waiting.answer
        assert answer
        if answer.failure:
            raise answer.failure.error()
        return answer.payload

    def _sent(self, origin: Origin, lease: str, payload: bytes) -> bool:
        passed = self._relay.asked(origin, lease)
        if passed is None:
            return False
        if self._post(lease, StateAsked(passed.number, payload)):
            return True
        self._relay.dropped(origin)
        return False

    def told(self, origin: Origin, answer: StateTold) -> bool:
        """Whether it was asked here; then whoever asked goes on."""
        waiting = self._waiting.get(origin)
        if waiting is None:
            return False
        waiting.answer = answer
        waiting.told.set()
        return True
