"""What a relay gives to whom: reservations, circuits, and how fast bytes pass. Pure; times are seconds of one clock."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

# How long a relay passes on what is asked of a peer before that has to ask again. A node that lost interest is
# forgotten soon, and renewing costs one round trip.
RESERVATION_S = 600.0
RESERVATIONS_MAX = 256

# Circuits of one peer, at either end, and of all: a caller has one for each provider that it reaches in no other way.
CIRCUITS_PER_PEER_MAX, CIRCUITS_MAX = 16, 64

# How fast bytes pass in one direction of a circuit, after a burst, and in all circuits together: control and small
# arguments need far less, and a relay at home, with some 50 Mbit/s up, stays usable for its owner.
BYTES_PER_SECOND, BURST_BYTES = 512 << 10, 1 << 20
ALL_BYTES_PER_SECOND, ALL_BURST_BYTES = 2 << 20, 4 << 20

# The bytes of one circuit, both ways together, and its life, seconds. A lease that runs into either is lost, and its
# inputs run again, so both are generous; what bounds the owner's bill is the rate.
CIRCUIT_BYTES_MAX = 512 << 20
CIRCUIT_LIFE_S = 12 * 3600.0

# Questions of one peer: so many at once, then so many a second. Reaching somebody takes four, and a caller may begin
# with twenty providers; a relay asks for all whom it relays for.
QUESTIONS_BURST, QUESTIONS_PER_SECOND = 100.0, 5.0
PEERS_MAX = 1000


@dataclass
class Bucket:
    """Lets `rate` a second pass after a burst of `size`."""

    rate: float
    size: float
    left: float
    at: float

    @classmethod
    def full(cls, rate: float, size: float, now: float) -> Bucket:
        return cls(rate, size, size, now)

    def take(self, amount: float, now: float) -> float:
        """Take it, and return the seconds to wait before using it: what is owed is earned meanwhile."""
        self._earn(now)
        self.left -= amount
        return max(0.0, -self.left / self.rate)

    def allows(self, now: float) -> bool:
        """Take one if there is one."""
        self._earn(now)
        if self.left < 1:
            return False
        self.left -= 1
        return True

    def _earn(self, now: float) -> None:
        self.left = min(self.size, self.left + (now - self.at) * self.rate)
        self.at = now


@dataclass
class Desk:
    """The books of one relay. Methods that return a string say why not; an empty one means yes."""

    enabled: bool = True
    reserved: dict[str, float] = field(default_factory=dict)
    circuits: Counter[str] = field(default_factory=Counter)
    open: int = 0
    _all: Bucket | None = None
    _asked: dict[str, Bucket] = field(default_factory=dict)

    def hurried(self, peer: str, now: float) -> bool:
        """Whether a peer asks too often."""
        if peer not in self._asked and len(self._asked) >= PEERS_MAX:
            del self._asked[next(iter(self._asked))]
        bucket = self._asked.setdefault(peer, Bucket.full(QUESTIONS_PER_SECOND, QUESTIONS_BURST, now))
        return not bucket.allows(now)

    def reserve(self, peer: str, now: float) -> str:
        self._expire(now)
        if not self.enabled:
            return "this node relays nothing"
        if peer not in self.reserved and len(self.reserved) >= RESERVATIONS_MAX:
            return "this node relays for as many peers as it can"
        self.reserved[peer] = now + RESERVATION_S
        return ""

    def may_ask(self, target: str, now: float) -> str:
        """Whether something is passed on to a peer."""
        self._expire(now)
        if not self.enabled:
            return "this node relays nothing"
        return "" if target in self.reserved else "this node does not relay for that peer"

    def begin(self, asker: str, target: str, now: float) -> str:
        """Count one circuit, until `end`."""
        if why := self.may_ask(target, now):
            return why
        if self.open >= CIRCUITS_MAX or max(self.circuits[asker], self.circuits[target]) >= CIRCUITS_PER_PEER_MAX:
            return "this node relays as much as it can"
        self.circuits.update((asker, target))
        self.open += 1
        return ""

    def end(self, asker: str, target: str) -> None:
        self.circuits.subtract((asker, target))
        self.circuits = +self.circuits
        self.open -= 1

    def passes(self, meter: Meter, direction: int, size: int, now: float) -> float | None:
        """Seconds to hold so many bytes of a circuit back; None when it is used up."""
        self._all = self._all or Bucket.full(ALL_BYTES_PER_SECOND, ALL_BURST_BYTES, now)
        own = meter.passes(direction, size, now)
        return None if own is None else max(own, self._all.take(size, now))

    def _expire(self, now: float) -> None:
        for peer in [peer for peer, until in self.reserved.items() if until <= now]:
            del self.reserved[peer]


@dataclass
class Meter:
    """What one circuit has used."""

    begun: float
    passed: int = 0
    _buckets: tuple[Bucket, ...] = ()

    def __post_init__(self) -> None:
        self._buckets = tuple(Bucket.full(BYTES_PER_SECOND, BURST_BYTES, self.begun) for _ in range(2))

    def passes(self, direction: int, size: int, now: float) -> float | None:
        """As `Desk.passes`, for this circuit alone."""
        self.passed += size
        if self.passed > CIRCUIT_BYTES_MAX or now - self.begun > CIRCUIT_LIFE_S:
            return None
        return self._buckets[direction].take(size, now)
