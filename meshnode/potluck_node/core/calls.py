"""The call core: the caller's side of every call. Events in, actions out; no I/O, no clock, dice handed in.

A call's inputs are queued per function, so that all calls of one function share its leases. Work is pulled: a lease
gets as many inputs as it has slots, plus a few ahead when they are short, so that fast workers get more. A lost lease
puts its inputs back at the head of the queue; the first outcome of an input is delivered and every later one dropped.

    queued → placed → leased → running → (succeeded | failed | cancelled | lost → queued)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from potluck.errors import ExecutionError, RemoteProtocolError
from potluck.wire import Failure, FunctionSpec, function_id
from potluck.wire.lease import InputDone
from potluck.wire.offer import Offer
from potluck_node.core import events as ev
from potluck_node.core.offers import OfferBook, skew_text
from potluck_node.core.placement import Candidate, Dice, choose, describe, misfit, no_peer, slots

# Offers reach a new node within a gossip round or two; only then does "nobody has it" mean something.
NO_PEER_GRACE_US = 8_000_000
# An idle lease is kept this long, so that calls in a row do not pay for opening one each.
LINGER_US = 2_000_000
# A peer that failed is avoided 2 s, then twice as long each time, at most 2 min.
BAN_FIRST_US, BAN_MAX_US = 2_000_000, 120_000_000
# A busy peer is asked again after this long, and so is one that was lost.
BUSY_RETRY_US = 1_000_000
# An input that took five machines down is taken for the cause.
LOSSES_MAX = 5
# After so many refusals that waiting does not cure, with nothing running, the call fails with the last one.
REFUSALS_MAX = 4
# So many peers must say that a function would fail anywhere.
VERDICTS_NEEDED = 2
# Inputs sent ahead per slot: about 20 ms of work, so that a slot never waits for the network, and at most 64.
AHEAD_US, AHEAD_MAX = 20_000, 64
# At most so many leases of one function are being opened at once.
OPENING_MAX = 4

# Failures that say something about the machine or the moment, not the function; `retries` applies.
_RETRIED_KINDS = frozenset({"timeout", "resource-exceeded", "execution"})


@dataclass(slots=True)
class _Input:
    number: int
    call: str
    index: int
    payload: bytes
    attempt: int = 0
    losses: int = 0
    failures: int = 0
    not_before_us: int = 0


@dataclass(slots=True)
class _Call:
    function: str
    waiting: set[int] = field(default_factory=set)
    total: int = 0
    ended: bool = False


@dataclass(slots=True)
class _Lease:
    peer: str
    function: str
    slots: int = 0
    expected: int = 1
    inputs: set[int] = field(default_factory=set)
    mean_us: int = 0
    idle_us: int = 0
    stage: str = ""

    def room(self) -> int:
        """How many more inputs to send."""
        ahead = 0 if self.mean_us == 0 else min(AHEAD_MAX, AHEAD_US // self.mean_us)
        return self.slots * (1 + ahead) - len(self.inputs)


@dataclass(slots=True)
class _Function:
    """All that is known of one function's demand; `name` is its function id."""

    name: str
    spec: FunctionSpec
    since_us: int
    queue: deque[int] = field(default_factory=deque)
    delayed: list[int] = field(default_factory=list)
    calls: set[str] = field(default_factory=set)
    leases: set[str] = field(default_factory=set)
    not_before: dict[str, int] = field(default_factory=dict)
    refusals: int = 0
    last_refusal: Failure | None = None
    verdicts: dict[str, Failure] = field(default_factory=dict)
    note: tuple[str, str] = ("", "")


@dataclass(slots=True)
class _Ban:
    until_us: int = 0
    strikes: int = 0


class CallCore:
    """Drive with `handle(event, now_us)`; send `Tick` when `wake_us` has come. Times are Unix microseconds."""

    def __init__(self, book: OfferBook, dice: Dice, own_offer: Callable[[], Offer | None]) -> None:
        self._book, self._dice, self._own_offer = book, dice, own_offer
        self._calls: dict[str, _Call] = {}
        self._inputs: dict[int, _Input] = {}
        self._functions: dict[str, _Function] = {}
        self._leases: dict[str, _Lease] = {}
        self._bans: dict[str, _Ban] = {}
        self._numbers = 0
        self._actions: list[ev.Action] = []
        self.rtt_us: dict[str, int] = {}
        self.wake_us: int | None = None
        self._handlers: dict[type, Callable[..., None]] = {
            ev.CallOpened: self._call_opened,
            ev.InputAdded: self._input_added,
            ev.InputsEnded: self._inputs_ended,
            ev.CallCancelled: self._call_cancelled,
            ev.LeaseAccepted: self._lease_accepted,
            ev.LeaseDenied: self._lease_denied,
            ev.LeaseStage: self._lease_stage,
            ev.InputBegan: self._input_began,
            ev.InputFinished: self._input_finished,
            ev.LeaseLost: self._lease_lost,
            ev.OffersChanged: self._pump_all,
            ev.Tick: self._tick,
        }

    def handle(self, event: ev.Event, now_us: int) -> list[ev.Action]:
        """Take one event and return what to do, in order."""
        self._handlers[type(event)](event, now_us)
        actions, self._actions = self._actions, []
        return actions

    # What the outside may ask

    def calls(self) -> Iterator[tuple[str, str, int, int, str]]:
        """(call, function name, inputs, waiting inputs, what it waits for) of each open call."""
        for name, call in self._calls.items():
            function = self._functions[call.function]
            yield name, function.spec.name, call.total, len(call.waiting), function.note[1]

    def leases(self) -> Iterator[tuple[str, str, int, int]]:
        """(lease, peer, slots, inputs under way) of each lease."""
        for name, lease in self._leases.items():
            yield name, lease.peer, lease.slots, len(lease.inputs)

    def input_of(self, number: int) -> tuple[str, int] | None:
        """(call, index) of an input that is still awaited."""
        item = self._inputs.get(number)
        return (item.call, item.index) if item else None

    # Events

    def _call_opened(self, event: ev.CallOpened, now_us: int) -> None:
        name = function_id(event.function)
        function = self._functions.setdefault(name, _Function(name, event.function, now_us))
        if not function.calls:
            function.since_us, function.refusals, function.verdicts = now_us, 0, {}
        function.calls.add(event.call)
        self._calls[event.call] = _Call(name)

    def _input_added(self, event: ev.InputAdded, now_us: int) -> None:
        call = self._calls.get(event.call)
        if call is None:
            return
        self._numbers += 1
        self._inputs[self._numbers] = _Input(self._numbers, event.call, event.index, event.payload)
        call.waiting.add(self._numbers)
        call.total += 1
        function = self._functions[call.function]
        function.queue.append(self._numbers)
        self._pump(function, now_us)

    def _inputs_ended(self, event: ev.InputsEnded, now_us: int) -> None:
        call = self._calls.get(event.call)
        if call:
            call.ended = True
            self._finish_call(event.call, now_us)

    def _call_cancelled(self, event: ev.CallCancelled, now_us: int) -> None:
        call = self._calls.pop(event.call, None)
        if call is None:
            return
        function = self._functions[call.function]
        function.calls.discard(event.call)
        for number in call.waiting:
            self._inputs.pop(number, None)
        function.queue = deque(number for number in function.queue if number not in call.waiting)
        function.delayed = [number for number in function.delayed if number not in call.waiting]
        for lease in sorted(function.leases):
            for number in sorted(self._leases[lease].inputs & call.waiting):
                self._actions.append(ev.AbortInput(lease, number, event.reason))
        self._pump(function, now_us)

    def _lease_accepted(self, event: ev.LeaseAccepted, now_us: int) -> None:
        lease = self._leases.get(event.lease)
        if lease is None:
            self._actions.append(ev.EndLease(event.lease, "no longer needed"))
            return
        lease.slots = max(1, event.slots)
        lease.idle_us = now_us
        self._pump(self._functions[lease.function], now_us)

    def _lease_denied(self, event: ev.LeaseDenied, now_us: int) -> None:
        lease = self._leases.get(event.lease)
        if lease is None:
            return
        unsent = [number for number in lease.inputs if number in self._inputs]
        function = self._drop_lease(event.lease)
        function.queue.extendleft(sorted(unsent, reverse=True))
        wait_us = event.retry_after_us or BUSY_RETRY_US
        if event.reason not in ("busy", "paused", "function"):
            wait_us = self._strike(lease.peer, now_us)
            function.refusals += 1
            function.last_refusal = event.failure
        function.not_before[lease.peer] = now_us + wait_us
        if event.reason == "function":
            function.verdicts[lease.peer] = event.failure
            self._heed_verdicts(function, now_us)
        elif function.refusals >= REFUSALS_MAX and not function.leases and function.last_refusal:
            self._fail_all(function, function.last_refusal, now_us)
        self._pump(function, now_us)

    def _heed_verdicts(self, function: _Function, now_us: int) -> None:
        """Fail what would fail anywhere: when two peers say so, or one and there is nobody else to ask. A single peer
        that lies, or is broken, must not end a call."""
        others = [offer for offer in self._offers(now_us) if offer.peer not in function.verdicts]
        alone = all(misfit(offer, function.spec) for offer in others)
        if function.verdicts and (alone or len(function.verdicts) >= VERDICTS_NEEDED):
            self._fail_all(function, next(iter(function.verdicts.values())), now_us)

    def _lease_stage(self, event: ev.LeaseStage, now_us: int) -> None:
        lease = self._leases.get(event.lease)
        if lease:
            lease.stage = event.text
            self._note(self._functions[lease.function], now_us)

    def _input_began(self, event: ev.InputBegan, now_us: int) -> None:
        lease = self._leases.get(event.lease)
        if lease and lease.stage:
            lease.stage = ""
            self._note(self._functions[lease.function], now_us)

    def _input_finished(self, event: ev.InputFinished, now_us: int) -> None:
        lease, done = self._leases.get(event.lease), event.done
        if lease is None or done.input not in lease.inputs:
            return
        lease.inputs.discard(done.input)
        lease.idle_us = now_us
        lease.mean_us = max(1, (3 * lease.mean_us + done.run_us) // 4 if lease.mean_us else done.run_us)
        function = self._functions[lease.function]
        function.refusals = 0
        self._bans.pop(lease.peer, None)
        item = self._inputs.get(done.input)
        if item:
            self._settle(function, item, done, now_us)
        self._pump(function, now_us)

    def _lease_lost(self, event: ev.LeaseLost, now_us: int) -> None:
        lease = self._leases.get(event.lease)
        if lease is None:
            return
        self._strike(lease.peer, now_us)
        lost = sorted(lease.inputs, reverse=True)
        function = self._drop_lease(event.lease)
        function.not_before[lease.peer] = now_us + BUSY_RETRY_US
        for number in lost:
            item = self._inputs.get(number)
            if item:
                self._lost(function, item, event.why, now_us)
        self._pump(function, now_us)

    def _tick(self, _event: ev.Tick, now_us: int) -> None:
        self._pump_all(_event, now_us)

    # Outcomes

    def _settle(self, function: _Function, item: _Input, done: InputDone, now_us: int) -> None:
        if done.payload is not None:
            self._deliver(item, ev.Deliver(item.call, item.index, payload=done.payload), now_us)
        elif done.lost:
            self._lost(function, item, done.lost, now_us)
        elif self._may_retry(function, item, done):
            self._retry_later(function, item, now_us)
        elif done.exception is not None:
            self._deliver(item, ev.Deliver(item.call, item.index, exception=done.exception), now_us)
        else:
            failure = done.failure or Failure.of(RemoteProtocolError("The provider reported no outcome."))
            self._deliver(item, ev.Deliver(item.call, item.index, failure=failure), now_us)

    def _may_retry(self, function: _Function, item: _Input, done: InputDone) -> bool:
        if item.failures >= function.spec.retries.max_retries:
            return False
        return done.exception is not None or (done.failure is not None and done.failure.kind in _RETRIED_KINDS)

    def _retry_later(self, function: _Function, item: _Input, now_us: int) -> None:
        policy = function.spec.retries
        delay = policy.initial_delay_us
        for _ in range(item.failures):
            delay = min(policy.max_delay_us, delay * policy.backoff_milli // 1000)
        item.failures += 1
        item.not_before_us = now_us + min(delay, policy.max_delay_us)
        function.delayed.append(item.number)

    def _lost(self, function: _Function, item: _Input, why: str, now_us: int) -> None:
        item.losses += 1
        if item.losses > LOSSES_MAX:
            error = ExecutionError(
                f"{function.spec.name} was lost on {item.losses} machines in a row.",
                why=f"the last one: {why}",
                fix="The input may crash its worker: try it with `.local()`, or ask for more memory.",
            )
            self._deliver(item, ev.Deliver(item.call, item.index, failure=Failure.of(error)), now_us)
            return
        function.queue.appendleft(item.number)

    def _deliver(self, item: _Input, action: ev.Deliver, now_us: int) -> None:
        del self._inputs[item.number]
        self._actions.append(action)
        call = self._calls[item.call]
        call.waiting.discard(item.number)
        self._finish_call(item.call, now_us)

    def _finish_call(self, name: str, now_us: int) -> None:
        call = self._calls[name]
        if call.ended and not call.waiting:
            del self._calls[name]
            self._functions[call.function].calls.discard(name)
            self._actions.append(ev.CallEnded(name))

    def _fail_all(self, function: _Function, failure: Failure, now_us: int) -> None:
        waiting = [*function.queue, *function.delayed]
        function.queue.clear()
        function.delayed.clear()
        for number in waiting:
            item = self._inputs.get(number)
            if item:
                self._deliver(item, ev.Deliver(item.call, item.index, failure=failure), now_us)

    # Leases

    def _drop_lease(self, name: str) -> _Function:
        lease = self._leases.pop(name)
        function = self._functions[lease.function]
        function.leases.discard(name)
        return function

    def _strike(self, peer: str, now_us: int) -> int:
        ban = self._bans.setdefault(peer, _Ban())
        length = min(BAN_MAX_US, BAN_FIRST_US << min(ban.strikes, 10))
        ban.strikes += 1
        ban.until_us = now_us + length
        return length

    def _pump_all(self, _event: object, now_us: int) -> None:
        for function in list(self._functions.values()):
            self._pump(function, now_us)

    def _pump(self, function: _Function, now_us: int) -> None:
        """Send what can be sent, ask for more leases where that is not enough, end idle ones, say what is awaited."""
        due = [number for number in function.delayed if self._inputs[number].not_before_us <= now_us]
        if due:
            function.delayed = [number for number in function.delayed if number not in due]
            function.queue.extend(due)
        self._assign(function)
        if function.queue:
            self._grow(function, now_us)
        self._shrink(function, now_us)
        self._note(function, now_us)
        self._plan_wake(now_us)

    def _assign(self, function: _Function) -> None:
        open_leases = [(name, self._leases[name]) for name in sorted(function.leases) if self._leases[name].slots]
        while function.queue and open_leases:
            name, lease = min(open_leases, key=lambda each: len(each[1].inputs) / each[1].slots)
            if lease.room() <= 0:
                open_leases = [each for each in open_leases if each[1].room() > 0]
                continue
            item = self._inputs[function.queue.popleft()]
            item.attempt += 1
            lease.inputs.add(item.number)
            self._actions.append(ev.SendInput(name, item.number, item.attempt, item.payload))

    def _grow(self, function: _Function, now_us: int) -> None:
        """Ask further peers until what is coming is enough for what waits."""
        while True:
            leases = [self._leases[name] for name in function.leases]
            opening = sum(not lease.slots for lease in leases)
            coming = sum(lease.expected for lease in leases if not lease.slots)
            if opening >= OPENING_MAX or coming >= len(function.queue):
                return
            chosen = choose(self._candidates(function, now_us), function.name, function.spec, self._dice)
            if chosen is None:
                break
            self._open(function, chosen.offer, now_us)
        self._give_up(function, now_us)

    def _open(self, function: _Function, offer: Offer, now_us: int) -> None:
        name = f"{self._book.us[-8:]}-{now_us:x}-{self._dice.randrange(1 << 32):08x}"
        free = max(1, slots(offer, function.spec.resources))
        self._leases[name] = _Lease(offer.peer, function.name, expected=free, idle_us=now_us)
        self._leases[name].stage = f"asking {offer.name}"
        function.leases.add(name)
        self._actions.append(ev.OpenLease(name, offer.peer, function.spec, len(function.queue)))

    def _offers(self, now_us: int) -> list[Offer]:
        own = self._own_offer()
        return [*([own] if own else []), *self._book.fresh(now_us)]

    def _candidates(self, function: _Function, now_us: int) -> list[Candidate]:
        """Peers that may be asked now: no lease with them yet, and not told to wait."""
        leased = {self._leases[name].peer for name in function.leases}
        return [
            Candidate(offer, self.rtt_us.get(offer.peer, 0), self._banned(offer.peer, now_us))
            for offer in self._offers(now_us)
            if offer.peer not in leased
            and offer.peer not in function.verdicts
            and function.not_before.get(offer.peer, 0) <= now_us
        ]

    def _banned(self, peer: str, now_us: int) -> bool:
        ban = self._bans.get(peer)
        return ban is not None and ban.until_us > now_us

    def _give_up(self, function: _Function, now_us: int) -> None:
        """Fail what nobody can ever run, once discovery had its chance."""
        self._heed_verdicts(function, now_us)
        if function.leases or now_us < function.since_us + NO_PEER_GRACE_US:
            return
        offers = self._offers(now_us)
        if all(misfit(offer, function.spec) for offer in offers):
            notes = [f"{peer[-8:]} is ignored: {skew_text(skew)}" for peer, skew in self._book.skewed.items()]
            self._fail_all(function, Failure.of(no_peer(function.spec, offers, notes)), now_us)

    def _shrink(self, function: _Function, now_us: int) -> None:
        for name in sorted(function.leases):
            lease = self._leases[name]
            unwanted = not lease.slots and not function.calls
            if unwanted or (self._unused(function, lease) and now_us >= lease.idle_us + LINGER_US):
                self._drop_lease(name)
                self._actions.append(ev.EndLease(name, "done"))
        if not function.calls and not function.leases:
            self._functions.pop(function.name, None)

    def _unused(self, function: _Function, lease: _Lease) -> bool:
        return bool(lease.slots and not lease.inputs and not function.queue and not function.delayed)

    # Words and time

    def _note(self, function: _Function, now_us: int) -> None:
        note = self._state(function, now_us)
        if note != function.note:
            function.note = note
            self._actions.extend(ev.Notice(call, *note) for call in sorted(function.calls))

    def _state(self, function: _Function, now_us: int) -> tuple[str, str]:
        leases = [self._leases[name] for name in sorted(function.leases)]
        stages = [lease.stage for lease in leases if lease.stage]
        if any(lease.inputs and not lease.stage for lease in leases):
            peers = len({lease.peer for lease in leases if lease.inputs})
            return "running", f"running on {peers} peer{'s' if peers != 1 else ''}"
        if stages:
            return ("leased" if any(lease.slots for lease in leases) else "placed"), "; ".join(stages)
        if not function.queue and not function.delayed:
            return "running", ""
        return "queued", self._waiting_text(function, now_us)

    def _waiting_text(self, function: _Function, now_us: int) -> str:
        wanted = describe(function.spec.resources)
        having = [offer for offer in self._offers(now_us) if not misfit(offer, function.spec)]
        if function.delayed and not function.queue:
            return "waiting to retry"
        if not having:
            return f"waiting for {wanted}; no peer known has it yet"
        return f"waiting for {wanted}; {len(having)} peer{'s have' if len(having) != 1 else ' has'} it, none free"

    def _plan_wake(self, now_us: int) -> None:
        times: list[int] = []
        for function in self._functions.values():
            times += [self._inputs[number].not_before_us for number in function.delayed]
            leases = map(self._leases.__getitem__, function.leases)
            times += [lease.idle_us + LINGER_US for lease in leases if self._unused(function, lease)]
            if function.queue:
                times += [time for time in function.not_before.values() if time > now_us]
                times.append(max(now_us + BUSY_RETRY_US, function.since_us + NO_PEER_GRACE_US))
        self.wake_us = max(now_us + 1000, min(times)) if times else None
