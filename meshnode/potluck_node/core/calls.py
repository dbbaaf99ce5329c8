"""The call core: the caller's side of every call. Events in, actions out; no I/O, no clock, dice handed in.

A call's inputs are queued per function, so that all calls of one function share its leases (see `hiring`). A lost lease
puts its inputs back at the head of the queue; the first outcome of an input is delivered and every later one dropped.

    queued → placed → leased → running → (succeeded | failed | cancelled | lost → queued)
"""

from __future__ import annotations

from collections.abc import Callable

from potluck.errors import ExecutionError, RemoteProtocolError
from potluck.wire import Failure, FunctionSpec, function_id
from potluck.wire.common import Limit
from potluck.wire.lease import InputDone
from potluck.wire.offer import Offer
from potluck_node.core import events as ev
from potluck_node.core.budgets import Budgets
from potluck_node.core.checking import Checking
from potluck_node.core.demand import AHEAD_MAX, Call, Function, Input
from potluck_node.core.giving_up import GivingUp
from potluck_node.core.hiring import BUSY_RETRY_US, LINGER_US, NO_PEER_GRACE_US, Hiring
from potluck_node.core.keeping import Keeping
from potluck_node.core.levels import TRUSTED, Standing
from potluck_node.core.offers import OfferBook
from potluck_node.core.placement import Dice
from potluck_node.core.stalls import ran_out
from potluck_node.core.streams import Streams
from potluck_node.core.trust import only_data
from potluck_node.core.views import Views

__all__ = ["AHEAD_MAX", "BUSY_RETRY_US", "LINGER_US", "NO_PEER_GRACE_US", "CallCore"]

# An input that took five machines down is taken for the cause.
LOSSES_MAX = 5
# After so many refusals that waiting does not cure, with nothing running, the call fails with the last one.
REFUSALS_MAX = 4


class CallCore(Views):
    """Drive with `handle(event, now_us)`; send `Tick` when `wake_us` has come. Times are Unix microseconds.

    What a peer returns or raises whose `standing` allows no code must be data: anything else is refused here.
    """

    def __init__(
        self, book: OfferBook, dice: Dice, own_offer: Callable[[], Offer | None],
        standing: Callable[[str], Standing] = lambda peer: TRUSTED,
    ) -> None:  # fmt: skip
        self._calls: dict[str, Call] = {}
        self._inputs: dict[int, Input] = {}
        self._named: dict[int, str] = {}
        self._numbers = 0
        self._actions: list[ev.Action] = []
        self._hiring = Hiring(
            book, dice, own_offer, self._inputs, self._act,
            lambda function, now_us: self._giving_up.look(function, now_us), self._hedgeable,
            lambda case, now_us: self.checking.nobody(case, now_us),
        )  # fmt: skip
        self._giving_up = GivingUp(book, self._hiring, self._inputs, self._act, self._deliver)
        self._hiring.standing = self._standing = standing
        self.checking = Checking(
            self._hiring, self._calls, self._inputs, dice, self._act, self._number, self._deliver, self._part
        )
        self.reputation = self._hiring.reputation
        self._keeping = Keeping(self._hiring, self._act, self._function)
        self._functions, self._leases = self._hiring.functions, self._hiring.leases
        self.rtt_us = self._hiring.rtt_us
        # What a second costs on a GPU model, in thousandths; and when the next limit may be reached.
        self.weighs: Callable[[str], int] = lambda model: 1000
        self.budgets = Budgets(lambda lease: self.weighs(self._hiring.model(lease)))
        self._look_us: int | None = None
        self._handlers: dict[type, Callable[..., None]] = {
            ev.CallOpened: self._call_opened,
            ev.ResultsJudged: self.checking.judged,
            ev.InputAdded: self._input_added,
            ev.InputsEnded: self._inputs_ended,
            ev.CallCancelled: self._call_cancelled,
            ev.LeaseAccepted: self._lease_accepted,
            ev.LeaseDenied: self._lease_denied,
            ev.LeaseStage: self._lease_stage,
            ev.LeaseWarm: self._lease_warm,
            ev.InputBegan: self._input_began,
            ev.InputFinished: self._input_finished,
            ev.LeaseLost: self._lease_lost,
            ev.OffersChanged: self._pump_all,
            ev.Tick: self._pump_all,
            **Streams(self._hiring, self._calls, self._inputs, self._act, self._deliver).handlers(),
            **self._keeping.handlers(),
        }

    def handle(self, event: ev.Event, now_us: int) -> list[ev.Action]:
        """Take one event and return what to do, in order."""
        self._handlers[type(event)](event, now_us)
        self.checking.look(now_us)
        for name in self.checking.late(now_us):
            self._finish_call(name, now_us)
        self._look_us = self._stop_spent(now_us) if self.budgets else None
        actions, self._actions = self._actions, []
        return actions

    def _act(self, action: ev.Action) -> None:
        self._actions.append(action)

    @property
    def wake_us(self) -> int | None:
        times = (self._hiring.wake_us, self._look_us, self.checking.late_us)
        return min((time for time in times if time is not None), default=None)

    # Calls

    def limits_of(self, asked: tuple[str, int], new: Callable[[], str]) -> tuple[tuple[Limit, int, int], ...]:
        """Those of (lease, input), as `CallOpened.under` has it; `new` makes a name for one without."""
        return self.budgets.shared(asked, self._leases, new)

    def _function(self, spec: FunctionSpec, now_us: int) -> Function:
        # Of the very object that is known, it is known, too: what is hashed of it may be long.
        name = self._named.get(id(spec), "")
        if name not in self._functions or self._functions[name].spec is not spec:
            name = function_id(spec)
        if name not in self._functions:
            self._functions[name] = Function(name, spec, now_us, scaling=spec.scaling)
            self._named = {id(each.spec): each.name for each in self._functions.values()}
        return self._functions[name]

    def _call_opened(self, event: ev.CallOpened, now_us: int) -> None:
        function = self._function(event.function, now_us)
        if not function.calls:
            function.since_us, function.refusals, function.verdicts, function.used_us = now_us, 0, {}, 0
            function.unreached = {}
        function.calls.add(event.call)
        rule = self.checking.rule(event.function, event.verify)
        self._calls[event.call] = Call(function.name, self.budgets.opened(event, self._leases), rule)

    def _input_added(self, event: ev.InputAdded, now_us: int) -> None:
        call = self._calls.get(event.call)
        if call is None:
            return
        if spent := next((each for each in call.budgets if each.left(0, 0) <= 0), None):
            self._act(ev.Deliver(event.call, event.index, failure=spent.failure()))
            return
        item = Input(
            self._number(), event.call, event.index, event.payload, worker=event.worker, budgets=call.budgets
        )  # fmt: skip
        self._inputs[item.number] = item
        call.waiting.add(item.number)
        call.total += 1
        function = self._functions[call.function]
        function.added(now_us)
        if call.rule:
            self.checking.open(item, call, function)
        else:
            function.queue.append(item.number)
        self._hiring.pump(function, now_us)

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _inputs_ended(self, event: ev.InputsEnded, now_us: int) -> None:
        call = self._calls.get(event.call)
        if call:
            call.ended = True
            function = self._functions[call.function]
            self._finish_call(event.call, now_us)
            # Of a single input it was clear before that it runs alone.
            if call.total > 1 or not call.waiting:
                self._hiring.pump(function, now_us)

    # Limits

    def _stop_spent(self, now_us: int) -> int | None:
        """Fail what would go beyond its limit; returns when to look again."""
        over, look_us = self.budgets.look(self._leases.values(), now_us)
        for name, spent in over.items():
            call = self._calls[name]
            failure, function, stopped = spent.failure(), self._functions[call.function], set(call.waiting)
            function.drop(stopped)
            for item in [self._inputs[number] for number in sorted(stopped)]:
                self._deliver(item, ev.Deliver(item.call, item.index, failure=failure), now_us)
            self._hiring.pump(function, now_us)
        return look_us

    def _call_cancelled(self, event: ev.CallCancelled, now_us: int) -> None:
        call = self._calls.pop(event.call, None)
        if call is None:
            return
        self.budgets.closed(event.call)
        self.checking.ends.pop(event.call, None)
        function = self._functions[call.function]
        function.calls.discard(event.call)
        for number in call.waiting:
            if (item := self._inputs.pop(number, None)) and item.case and item.case.number == number:
                function.cases -= 1
        function.drop(call.waiting)
        for lease in sorted(function.leases):
            for number in sorted(self._leases[lease].inputs.keys() & call.waiting):
                self._act(ev.AbortInput(lease, number, event.reason))
        self._hiring.pump(function, now_us)

    # Leases

    def _lease_accepted(self, event: ev.LeaseAccepted, now_us: int) -> None:
        lease = self._leases.get(event.lease)
        if lease is None:
            self._act(ev.EndLease(event.lease, "no longer needed"))
            return
        lease.slots, lease.carries = max(lease.places, event.slots), event.carries
        self._hiring.watch(lease.peer)
        self._functions[lease.function].granted_by(lease.peer)
        lease.idle_us = now_us
        self._hiring.pump(self._functions[lease.function], now_us)

    def _lease_denied(self, event: ev.LeaseDenied, now_us: int) -> None:
        lease = self._leases.get(event.lease)
        if lease is None:
            return
        function = self._hiring.drop(event.lease)
        function.unreached.pop(lease.peer, None)
        self.budgets.broke(lease, now_us)
        self._hiring.homes.forget(lease.peer)
        unsent = [number for number in lease.inputs if self._alone(function, number)]
        function.queue.extendleft(sorted(unsent, reverse=True))
        wait_us = event.retry_after_us or BUSY_RETRY_US
        if self._hiring.is_refusal(function, lease.peer, event.reason):
            wait_us = self._hiring.strike(lease.peer, now_us)
            function.refusals += 1
            function.refused_by.add(lease.peer)
            function.last_refusal = event.failure
        failure = event.failure
        why = f"{failure.what.rstrip('.')}: {failure.why}" if failure.why else failure.what
        function.not_before[lease.peer] = (now_us + wait_us, why)
        if event.reason == "function":
            function.verdicts[lease.peer] = event.failure
            self._giving_up.heed_verdicts(function, now_us)
        elif function.refusals >= REFUSALS_MAX and not function.leases and function.last_refusal:
            self._giving_up.fail_all(function, function.last_refusal, now_us)
        self._hiring.pump(function, now_us)

    def _lease_stage(self, event: ev.LeaseStage, now_us: int) -> None:
        lease = self._leases.get(event.lease)
        if lease:
            lease.stage = event.text
            self._hiring.note(self._functions[lease.function], now_us)

    def _lease_warm(self, event: ev.LeaseWarm, now_us: int) -> None:
        self._lease_stage(ev.LeaseStage(event.lease, ""), now_us)
        lease = self._leases.get(event.lease)
        if lease and not lease.warm:
            lease.warm, lease.trouble = True, event.trouble
            if self._functions[lease.function].keepers:
                self._keeping.stands(self._functions[lease.function], event.trouble)

    def _input_began(self, event: ev.InputBegan, now_us: int) -> None:
        lease = self._leases.get(event.lease)
        if lease is None:
            return
        function = self._functions[lease.function]
        if event.input in lease.inputs:
            lease.inputs[event.input].began_us = now_us
            self._began(event, function)
        if lease.stage or not lease.warm:
            self._lease_warm(ev.LeaseWarm(event.lease), now_us)
        if not lease.up:
            lease.up = True
            function.start_us = (function.start_us + max(1, now_us - lease.opened_us)) // 2

    def _began(self, event: ev.InputBegan, function: Function) -> None:
        item = self._inputs.get(event.input)
        if item:
            item.began = True
            if function.spec.web:
                self._hiring.homes.note(event.worker, self._leases[event.lease].peer)
                self._act(ev.Began(item.call, item.index, event.worker))

    def _input_finished(self, event: ev.InputFinished, now_us: int) -> None:
        lease, done = self._leases.get(event.lease), event.done
        sent = lease.inputs.get(done.input) if lease else None
        if lease is None or sent is None or sent.attempt != done.attempt:
            return
        del lease.inputs[done.input]
        self.budgets.ended(lease, sent.budgets, done.run_us)
        lease.idle_us = now_us
        lease.mean_us = max(1, (3 * lease.mean_us + done.run_us) // 4 if lease.mean_us else done.run_us)
        function = self._functions[lease.function]
        function.refusals = 0
        in_vain = ran_out(done, function.spec)
        function.ran(done.run_us, now_us, in_vain)
        if not in_vain:
            self._hiring.worked(lease)
        item = self._inputs.get(done.input)
        late = self._hiring.stalls.ended(lease, self._whole(item), done, function.spec)
        if item and done.failure is None and not done.lost:
            self._overtaken(function, item.number, sent.sent_us)
        if item:
            data = function.spec.web or self._standing(lease.peer).code
            done = done if data else only_data(done, lease.peer)
            if item.case and not done.lost:
                self.checking.answered(function, item, lease, event.lease, done, now_us)
            else:
                self._settle(function, item, done, now_us)
        self._put_off(late, function.spec, now_us)
        self._hiring.watch(lease.peer)
        self._hiring.pump(function, now_us)

    def _overtaken(self, function: Function, number: int, sent_us: int) -> None:
        """An input was answered where it was sent at `sent_us`: those that have it for longer were too slow."""
        for lease in self._hiring.of(function):
            if number in lease.inputs and lease.inputs[number].sent_us < sent_us:
                self._hiring.stalls.overtaken(lease.peer)
                self._hiring.watch(lease.peer)

    def _whole(self, item: Input | None) -> Input | None:
        """An input, or what stands for all its replicas."""
        return self._inputs.get(item.case.number) if item and item.case else item

    def _put_off(self, peers: list[str], spec: FunctionSpec, now_us: int) -> None:
        """Avoid those at which inputs run out of time while others answer; to who answers none of several, nothing is
        left."""
        for peer in peers:
            self._hiring.strike(peer, now_us, self._hiring.stalls.put_off_us(peer, spec))
            self._hiring.watch(peer)
            if self._hiring.stalls.is_silent(peer):
                held = [number for lease in self._leases.values() if lease.peer == peer for number in lease.inputs]
                for item in [self._whole(self._inputs.get(number)) for number in held]:
                    if item:
                        item.ran_out = (*item.ran_out, peer)
                self._part(peer, "inputs run out of time there, and not elsewhere", now_us)

    def _lease_lost(self, event: ev.LeaseLost, now_us: int) -> None:
        lease = self._leases.get(event.lease)
        if lease is None:
            return
        self._hiring.strike(lease.peer, now_us)
        self._hiring.homes.forget(lease.peer)
        lost = sorted(lease.inputs, reverse=True)
        self.budgets.broke(lease, now_us)
        function = self._hiring.drop(event.lease)
        function.not_before[lease.peer] = (now_us + BUSY_RETRY_US, event.why)
        if not lease.slots:
            self._giving_up.unreached(function, lease, event.why, now_us)
        for number in lost:
            item = self._inputs.get(number)
            if item and self._last(function, item):
                self._lost(function, item, event.why, now_us)
        self._hiring.pump(function, now_us)

    def _pump_all(self, _event: object, now_us: int) -> None:
        self._hiring.pump_all(now_us)

    # Outcomes

    def _alone(self, function: Function, number: int) -> bool:
        """Whether an input is awaited, and from no lease any more."""
        return number in self._inputs and not any(number in self._leases[name].inputs for name in function.leases)

    def _last(self, function: Function, item: Input) -> bool:
        """Whether an input that failed runs nowhere else. One that does gets no further copy."""
        item.failed = not self._alone(function, item.number)
        return not item.failed

    def _hedgeable(self, number: int) -> bool:
        """Whether an input may run twice: one of a map to which nothing is added any more."""
        item = self._inputs.get(number)
        call = self._calls.get(item.call) if item and not item.failed else None
        return bool(call and call.ended and call.total > 1 and not self._functions[call.function].spec.generator)

    def _settle(self, function: Function, item: Input, done: InputDone, now_us: int) -> None:
        if done.payload is not None:
            self._deliver(item, ev.Deliver(item.call, item.index, payload=done.payload), now_us)
        elif not self._last(function, item):
            return  # it runs a second time elsewhere, which may go better
        elif done.lost:
            self._lost(function, item, done.lost, now_us, blames=not done.yielded)
        elif function.may_retry(item, done):
            self._retry_later(function, item, now_us)
        elif done.exception is not None:
            self._deliver(item, ev.Deliver(item.call, item.index, exception=done.exception), now_us)
        else:
            failure = done.failure or Failure.of(RemoteProtocolError("The provider reported no outcome."))
            self._deliver(item, ev.Deliver(item.call, item.index, failure=failure), now_us)

    def _retry_later(self, function: Function, item: Input, now_us: int) -> None:
        item.retry_later(function.spec.retries, now_us)
        function.delayed.append(item.number)

    def _lost(self, function: Function, item: Input, why: str, now_us: int, blames: bool = True) -> None:
        item.losses += blames
        if function.spec.web and item.began:
            # It may have had its effect, and of what it was sent nothing is kept.
            cut = ExecutionError(f"{function.spec.name} was lost while it answered.", why=why, fix="Send it again.")
            self._deliver(item, ev.Deliver(item.call, item.index, failure=Failure.of(cut)), now_us)
            return
        if item.losses > LOSSES_MAX and item.case:
            self.checking.gave_up(function, item, now_us)
            return
        if item.losses > LOSSES_MAX:
            error = ExecutionError(
                f"{function.spec.name} was lost on {item.losses} machines in a row.",
                why=f"the last one: {why}",
                fix="The input may crash its worker: try it with `.local()`, or ask for more memory.",
            )
            self._deliver(item, ev.Deliver(item.call, item.index, failure=Failure.of(error)), now_us)
            return
        function.queue.appendleft(item.number)

    def _deliver(self, item: Input, action: ev.Deliver, now_us: int) -> None:
        """The one outcome of an input, and of all its replicas."""
        if item.number not in self._inputs:
            return
        call = self._calls[item.call]
        function = self._functions[call.function]
        if not (item.case and item.case.is_canary):
            self._act(action)
        for number in self._dropped(function, item):
            del self._inputs[number]
            for name in sorted(function.leases):
                if number in self._leases[name].inputs:
                    self._act(ev.AbortInput(name, number, "it is over"))
            call.waiting.discard(number)
        self._finish_call(item.call, now_us)

    def _dropped(self, function: Function, item: Input) -> list[int]:
        """An input with its replicas, which are queued no more."""
        case = item.case
        if case is None:
            return [item.number]
        case.over = True
        function.cases -= 1
        if case.numbers:
            function.drop(case.numbers)
        return sorted({case.number, *case.numbers})

    def _part(self, peer: str, why: str, now_us: int) -> None:
        """End what a peer has of us; its inputs go elsewhere."""
        for name in [name for name, lease in self._leases.items() if lease.peer == peer]:
            lease = self._leases[name]
            self.budgets.broke(lease, now_us)
            function = self._hiring.drop(name)
            self._act(ev.EndLease(name, f"not trusted: {why}"))
            unsent = [number for number in lease.inputs if self._alone(function, number)]
            function.queue.extendleft(sorted(unsent, reverse=True))
        self._hiring.pump_all(now_us)

    def _finish_call(self, name: str, now_us: int) -> None:
        call = self._calls.get(name)
        if call is None:
            return
        function = self._functions[call.function]
        if call.ended and (left := self.checking.useless(name, call, function, now_us)):
            # Which finishes the call in turn.
            self._deliver(left, ev.Deliver(name, left.index), now_us)
            return
        if call.ended and not call.waiting:
            del self._calls[name]
            self.budgets.closed(name)
            function.calls.discard(name)
            self._act(ev.CallEnded(name))
