"""What the caller's core remembers of calls, inputs, leases and functions."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from potluck.wire import Failure, FunctionSpec, RetryPolicy, Scaling
from potluck.wire.lease import InputDone
from potluck.wire.verify import Verification

if TYPE_CHECKING:
    from potluck_node.core.budgets import Budget
    from potluck_node.core.verify import Case

# Failures that say something about the machine or the moment, not the function; `retries` applies.
_RETRIED_KINDS = frozenset({"timeout", "resource-exceeded", "execution"})
# Inputs sent ahead per slot: about 20 ms of work, so that a slot never waits for the network, and at most 64.
AHEAD_US, AHEAD_MAX = 20_000, 64
# Until it is known how long a worker of a function takes to start: a sandbox with few imports.
START_GUESS_US = 300_000


@dataclass(slots=True)
class Input:
    """`items` is how many items of a generator were delivered: one that runs again elsewhere begins anew. `began` says
    that a worker has had it; `worker` is the one that it is to have. Of a `case` it is a replica, or, with the case's
    own number, what stands for all of them and is never sent. It `ran_out` of time at these peers. Since a copy of it
    `failed`, only the other one counts: with ever new copies it would never end."""

    number: int
    call: str
    index: int
    payload: bytes
    attempt: int = 0
    losses: int = 0
    failures: int = 0
    not_before_us: int = 0
    items: int = 0
    began: bool = False
    worker: str = ""
    budgets: tuple[Budget, ...] = ()
    case: Case | None = None
    ran_out: tuple[str, ...] = ()
    failed: bool = False

    def retry_later(self, policy: RetryPolicy, now_us: int) -> None:
        """Each time it waits longer."""
        delay = policy.initial_delay_us
        for _ in range(self.failures):
            delay = min(policy.max_delay_us, delay * policy.backoff_milli // 1000)
        self.failures += 1
        self.not_before_us = now_us + min(delay, policy.max_delay_us)


@dataclass(slots=True)
class Call:
    function: str
    budgets: tuple[Budget, ...] = ()
    rule: Verification | None = None
    waiting: set[int] = field(default_factory=set)
    total: int = 0
    ended: bool = False


@dataclass(slots=True)
class Sent:
    """An input on its way; `began_us` is 0 until a worker has it."""

    attempt: int
    sent_us: int
    began_us: int = 0
    budgets: tuple[Budget, ...] = ()


@dataclass(slots=True)
class Lease:
    """`places` is how many inputs a worker holds; `slots` how many all workers of the lease do, 0 until granted.
    `least` and `most` workers were asked for. It is `up` once an input began, and `warm` once a worker was ready,
    if only to tell of its `trouble`. A `doubtful` one gets no more than one worker can hold. Inputs that get there have
    at most as many bytes as it `carries`."""

    peer: str
    function: str
    places: int = 1
    slots: int = 0
    expected: int = 1
    inputs: dict[int, Sent] = field(default_factory=dict)
    mean_us: int = 0
    idle_us: int = 0
    opened_us: int = 0
    stage: str = ""
    least: int = 0
    most: int = 0
    up: bool = False
    warm: bool = False
    trouble: str = ""
    doubtful: bool = False
    carries: int | None = None

    def takes(self, size: int) -> bool:
        """Whether an input of so many bytes gets there."""
        return self.carries is None or size <= self.carries

    @property
    def workers(self) -> int:
        """How many workers the lease may have."""
        return min(self.slots, self.places) // self.places if self.doubtful else self.slots // self.places

    def _most(self) -> int:
        """How many inputs it may have at once, but for those sent ahead."""
        slots = min(self.slots, self.most * self.places) if self.most else self.slots
        return min(slots, self.places) if self.doubtful else slots

    def part(self) -> float:
        """How much of a worker each input that runs may have at most."""
        began = sum(bool(sent.began_us) for sent in self.inputs.values())
        return min(1.0, max(1, self.workers) / began) if began else 1.0

    def room(self) -> int:
        """How many more inputs to send."""
        ahead = 0 if self.mean_us == 0 or self.doubtful else min(AHEAD_MAX, AHEAD_US // self.mean_us)
        return self._most() * (1 + ahead) - len(self.inputs)

    def free(self) -> int:
        """How many more inputs could run at once."""
        return self._most() - len(self.inputs)


@dataclass(slots=True)
class Replicas:
    """What verification costs: `inputs` were decided, of which one run each took `once_us`; all runs, canaries too, are
    `runs`, and took `all_us`."""

    inputs: int = 0
    once_us: int = 0
    runs: int = 0
    all_us: int = 0

    def text(self) -> str:
        """For the progress line; "" where nothing is verified."""
        if not self.inputs or not self.once_us:
            return ""
        return f"verified: {self.runs / self.inputs:.1f} replicas, {self.all_us / self.once_us:.1f}x GPU seconds"


@dataclass(slots=True)
class Function:
    """All that is known of one function's demand; `name` is its function id. `keepers` want `scaling` held up though
    nothing is called. `mean_us` is how long an input runs, `start_us` how long a worker takes until its first one
    begins, `gap_us` the time between two inputs that were added, the last at
    `added_us`. Inputs that ended since a call is open used
    `used_us`. An input was last taken off the hands of the function at `progress_us`. So many `cases` are open, whose
    results are verified. Peers in `refused_by` said no for more than the moment, the last time; those in
    `put_off_by` said so often in a row that they are busy, though their offers said that they were free. From those in
    `unreached` no answer came, since when and why. An input of `too_large` bytes gets to none who gave a lease."""

    name: str
    spec: FunctionSpec
    since_us: int
    queue: deque[int] = field(default_factory=deque)
    delayed: list[int] = field(default_factory=list)
    calls: set[str] = field(default_factory=set)
    keepers: set[str] = field(default_factory=set)
    leases: set[str] = field(default_factory=set)
    not_before: dict[str, tuple[int, str]] = field(default_factory=dict)
    refusals: int = 0
    last_refusal: Failure | None = None
    refused_by: set[str] = field(default_factory=set)
    put_off_by: dict[str, int] = field(default_factory=dict)
    unreached: dict[str, tuple[int, str]] = field(default_factory=dict)
    verdicts: dict[str, Failure] = field(default_factory=dict)
    note: tuple[str, str] = ("", "")
    scaling: Scaling = field(default_factory=Scaling)
    finished: int = 0
    used_us: int = 0
    mean_us: int = 0
    start_us: int = START_GUESS_US
    gap_us: int = 0
    added_us: int = 0
    progress_us: int = 0
    cases: int = 0
    replicas: Replicas = field(default_factory=Replicas)
    too_large: int = 0

    def granted_by(self, peer: str) -> None:
        """A peer gave a lease."""
        self.refused_by.discard(peer)
        self.put_off_by.pop(peer, None)
        self.unreached.pop(peer, None)

    def drop(self, numbers: set[int]) -> None:
        """Some inputs wait no longer."""
        self.queue = deque(number for number in self.queue if number not in numbers)
        self.delayed = [number for number in self.delayed if number not in numbers]

    def added(self, now_us: int) -> None:
        """An input was added: learn how often that is."""
        if not self.queue:
            self.progress_us = now_us
        if self.added_us:
            self.gap_us = (7 * self.gap_us + max(1, now_us - self.added_us)) // 8
        self.added_us = now_us

    def may_retry(self, item: Input, done: InputDone) -> bool:
        """Whether an input that failed is tried again, by the function's policy."""
        if self.spec.web or item.failures >= self.spec.retries.max_retries:
            return False
        return done.exception is not None or (done.failure is not None and done.failure.kind in _RETRIED_KINDS)

    def ran(self, run_us: int, now_us: int, in_vain: bool = False) -> None:
        """An input has run: learn how long that takes, unless it ran out of time while others do not."""
        self.progress_us = now_us
        self.finished += 1
        self.used_us += run_us
        if in_vain and self.mean_us:
            return
        self.mean_us = max(1, (7 * self.mean_us + run_us) // 8 if self.mean_us else run_us)
