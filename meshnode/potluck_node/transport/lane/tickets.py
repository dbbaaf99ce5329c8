"""Who may open a lane: whoever was given a ticket over the mesh, once and soon. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

TICKET_BYTES = 16

# From the ticket to its use: one round trip and a connection. Seconds.
TICKET_LIFE_S = 5.0

# Lanes of one peer and of all, with tickets that are not used yet. Each costs a socket and some 100 KiB; who gets none
# uses a stream of the mesh instead. A caller has one for each function that it calls here.
LANES_PER_PEER_MAX, LANES_MAX = 32, 512


@dataclass(frozen=True)
class Pass:
    """What a ticket is good for. `certificate` is the one that its bearer will show."""

    peer: str
    protocol: str
    certificate: bytes


class Tickets:
    """Counts lanes from their ticket to their end. Times are seconds of any clock that only goes forward."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, tuple[Pass, float]] = {}
        self.lanes: Counter[str] = Counter()

    def issue(self, ticket: bytes, good_for: Pass, now: float) -> bool:
        """Whether there is room for one more lane; then `ticket` opens it."""
        self._expire(now)
        peer = good_for.peer
        waiting = sum(each.peer == peer for each, _ in self._waiting.values())
        if self.lanes[peer] + waiting >= LANES_PER_PEER_MAX:
            return False
        if self.lanes.total() + len(self._waiting) >= LANES_MAX:
            return False
        self._waiting[ticket] = good_for, now + TICKET_LIFE_S
        return True

    def redeem(self, ticket: bytes, now: float) -> Pass | None:
        """What the ticket is good for, the first time; from then on its lane counts, until `ended`."""
        self._expire(now)
        found = self._waiting.pop(ticket, None)
        if found is None:
            return None
        self.lanes[found[0].peer] += 1
        return found[0]

    def ended(self, peer: str) -> None:
        """One of the peer's lanes is over."""
        self.lanes[peer] -= 1
        if self.lanes[peer] <= 0:
            del self.lanes[peer]

    def _expire(self, now: float) -> None:
        for ticket, (_, until) in list(self._waiting.items()):
            if until > now:
                break  # in order, since all live equally long
            del self._waiting[ticket]
