"""The call core: the caller's side of every call. Events in, actions out; no I/O, no clock, dice handed in.

A call's inputs are queued per function, so that all calls of one function share its leases (see `hiring`). A lost lease
puts its inputs back at the head of the queue; the first outcome of an input is delivered and every later one dropped.

    queued → placed → leased → running → (succeeded | failed | cancelled | lost → queued)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from potluck.errors import ExecutionError, RemoteProtocolError
from potluck.wire import Failure, FunctionSpec, function_id
from potluck.wire.lease import InputDone
from potluck.wire.offer import Offer
from potluck_node.core import events as ev
from potluck_node.core.budgets import Budgets
from potluck_node.core.demand import AHEAD_MAX, Call, Function, Input
from potluck_node.core.hiring import BUSY_RETRY_US, LINGER_US, NO_PEER_GRACE_US, Hiring
from potluck_node.core.offers import OfferBook, skew_text
from potluck_node.core.placement import Dice, misfit, no_peer
from potluck_node.core.trust import is_data, only_data

__all__ = ["AHEAD_MAX", "BUSY_RETRY_US", "LINGER_US", "NO_PEER_GRACE_US", "CallCore"]

# An input that took five machines down is taken for the cause.
LOSSES_MAX = 5
# After so many refusals that waiting does not cure, with nothing running, the call fails with the last one.
REFUSALS_MAX = 4
# So many peers must say that a function would fail anywhere.
VERDICTS_NEEDED = 2

# Failures that say something about the machine or the moment, not the function; `retries` applies.
_RETRIED_KINDS = frozenset({"timeout", "resource-exceeded", "execution"})


class CallCore:
    """Drive with `handle(event, now_us)`; send `Tick` when `wake_us` has come. Times are Unix microseconds.

    What a peer that `trusts` does not name returns or raises must be data: anything else is refused here.
    """

    def __init__(
        self, book: OfferBook, dice: Dice, own_offer: Callable[[], Offer | None],
        trusts: Callable[[str], bool] = lambda peer: True,
    ) -> None:  # fmt: skip
        self._book = book
        self._calls: dict[str, Call] = {}
        self._inputs: dict[int, Input] = {}
        self._kept: dict[str, set[str]] = {}
        self._named: dict[int, str] = {}
        self._numbers = 0
        self._actions: list[ev.Action] = []
        self._hiring = Hiring(book, dice, own_offer, self._inputs, self._act, self._give_up, self._hedgeable)
        self._hiring.trusts = self._trusts = trusts
        self._functions, self._leases = self._hiring.functions, self._hiring.leases
        self.rtt_us = self._hiring.rtt_us
        # What a second costs on a GPU model, in thousandths; and when the next limit may be reached.
        self.weighs: Callable[[str], int] = lambda model: 1000
        self.budgets = Budgets(lambda lease: self.weighs(self._hiring.model(lease)))
        self._look_us: int | None = None
        self._handlers: dict[type, Callable[..., None]] = {
            ev.CallOpened: self._call_opened,
            ev.InputAdded: self._input_added,
            ev.ItemsTaken: self._items_taken,
            ev.PieceAdded: self._piece_added,
            ev.InputsEnded: self._inputs_ended,
            ev.CallCancelled: self._call_cancelled,
            ev.FunctionKept: self._function_kept,
            ev.FunctionLeft: self._function_left,
            ev.ScalingSet: self._scaling_set,
            ev.LeaseAccepted: self._lease_accepted,
            ev.LeaseDenied: self._lease_denied,
            ev.LeaseStage: self._lease_stage,
            ev.LeaseWarm: self._lease_warm,
            ev.InputBegan: self._input_began,
            ev.ItemYielded: self._item_yielded,
            ev.PiecesTaken: self._pieces_taken,
            ev.InputFinished: self._input_finished,
            ev.LeaseLost: self._lease_lost,
            ev.OffersChanged: self._pump_all,
            ev.Tick: self._pump_all,
        }

    def handle(self, event: ev.Event, now_us: int) -> list[ev.Action]:
        """Take one event and return what to do, in order."""
        self._handlers[type(event)](event, now_us)
        self._look_us = self._stop_spent(now_us) if self.budgets else None
        actions, self._actions = self._actions, []
        return actions

    def _act(self, action: ev.Action) -> None:
        self._actions.append(action)

    @property
    def wake_us(self) -> int | None:
        wake_us = self._hiring.wake_us
        return wake_us if self._look_us is None else min(self._look_us, wake_us or self._look_us)

    # What the outside may ask

    def calls(self) -> Iterator[tuple[str, str, int, int, str]]:
        """(call, function name, inputs, waiting inputs, what it waits for) of each open call."""
        for name, call in self._calls.items():
            function = self._functions[call.function]
            yield name, function.spec.name, call.total, len(call.waiting), function.note[1]

    def heard(self, peer: str, rtt_us: int) -> None:
        """A round trip was measured: the mean of the last few counts."""
        known = self.rtt_us.get(peer)
        self.rtt_us[peer] = rtt_us if known is None else (3 * known + rtt_us) // 4

    def would(self, call: str, now_us: int) -> tuple[str, ...]:
        """A line for each peer: why it runs this call, or does not."""
        return self._hiring.would(self._functions[self._calls[call].function], now_us)

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

    def runs(self, lease: str, number: int) -> bool:
        """Whether an input is with a lease."""
        found = self._leases.get(lease)
        return found is not None and number in found.inputs

    # Calls

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
        function.calls.add(event.call)
        self._calls[event.call] = Call(function.name, self.budgets.opened(event, self._leases))

    def _input_added(self, event: ev.InputAdded, now_us: int) -> None:
        call = self._calls.get(event.call)
        if call is None:
            return
        if spent := next((each for each in call.budgets if each.left(0, 0) <= 0), None):
            self._act(ev.Deliver(event.call, event.index, failure=spent.failure()))
            return
        self._numbers += 1
        self._inputs[self._numbers] = Input(
            self._numbers, event.call, event.index, event.payload, worker=event.worker, budgets=call.budgets
        )
        call.waiting.add(self._numbers)
        call.total += 1
        function = self._functions[call.function]
        function.added(now_us)
        function.queue.append(self._numbers)
        self._hiring.pump(function, now_us)

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
            for number in sorted(stopped):
                item = self._inputs[number]
                self._deliver(item, ev.Deliver(item.call, item.index, failure=failure), now_us)
            self._hiring.pump(function, now_us)
        return look_us

    def _call_cancelled(self, event: ev.CallCancelled, now_us: int) -> None:
        call = self._calls.pop(event.call, None)
        if call is None:
            return
        self.budgets.closed(event.call)
        function = self._functions[call.function]
        function.calls.discard(event.call)
        for number in call.waiting:
            self._inputs.pop(number, None)
        function.drop(call.waiting)
        for lease in sorted(function.leases):
            for number in sorted(self._leases[lease].inputs.keys() & call.waiting):
                self._act(ev.AbortInput(lease, number, event.reason))
        self._hiring.pump(function, now_us)

    # Scaling

    def _function_kept(self, event: ev.FunctionKept, now_us: int) -> None:
        function = self._function(event.function, now_us)
        function.scaling = event.function.scaling
        function.keepers.add(event.holder)
        if warm := [lease for lease in self._hiring.of(function) if lease.warm]:
            self._stands(function, min(lease.trouble for lease in warm))
        self._kept.setdefault(event.holder, set()).add(function.name)
        self._hiring.pump(function, now_us)

    def _function_left(self, event: ev.FunctionLeft, now_us: int) -> None:
        for name in sorted(self._kept.pop(event.holder, ())):
            function = self._functions.get(name)
            if function:
                function.keepers.discard(event.holder)
                self._hiring.pump(function, now_us)

    def _scaling_set(self, event: ev.ScalingSet, now_us: int) -> None:
        function = self._functions.get(function_id(event.function))
        if function:
            function.scaling = event.scaling
            self._hiring.pump(function, now_us)

    # Leases

    def _lease_accepted(self, event: ev.LeaseAccepted, now_us: int) -> None:
        lease = self._leases.get(event.lease)
        if lease is None:
            self._act(ev.EndLease(event.lease, "no longer needed"))
            return
        lease.slots = max(lease.places, event.slots)
        lease.idle_us = now_us
        self._hiring.pump(self._functions[lease.function], now_us)

    def _lease_denied(self, event: ev.LeaseDenied, now_us: int) -> None:
        lease = self._leases.get(event.lease)
        if lease is None:
            return
        function = self._hiring.drop(event.lease)
        self.budgets.broke(lease, now_us)
        self._hiring.homes.forget(lease.peer)
        unsent = [number for number in lease.inputs if self._alone(function, number)]
        function.queue.extendleft(sorted(unsent, reverse=True))
        wait_us = event.retry_after_us or BUSY_RETRY_US
        if event.reason not in ("busy", "paused", "function"):
            wait_us = self._hiring.strike(lease.peer, now_us)
            function.refusals += 1
            function.last_refusal = event.failure
        failure = event.failure
        why = f"{failure.what.rstrip('.')}: {failure.why}" if failure.why else failure.what
        function.not_before[lease.peer] = (now_us + wait_us, why)
        if event.reason == "function":
            function.verdicts[lease.peer] = event.failure
            self._heed_verdicts(function, now_us)
        elif function.refusals >= REFUSALS_MAX and not function.leases and function.last_refusal:
            self._fail_all(function, function.last_refusal, now_us)
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
                self._stands(self._functions[lease.function], event.trouble)

    def _stands(self, function: Function, trouble: str) -> None:
        failed = Failure.of(ExecutionError(f"{function.spec.name} cannot start.", why=trouble)) if trouble else None
        self._act(ev.Standing(function.name, failed))

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

    def _item_yielded(self, event: ev.ItemYielded, now_us: int) -> None:
        lease, message = self._leases.get(event.lease), event.message
        item = self._inputs.get(message.input)
        sent = lease.inputs.get(message.input) if lease else None
        if not sent or not lease or not item or message.attempt != sent.attempt:
            return
        # What answers a request is only ever passed on.
        code = not self._functions[lease.function].spec.web and not is_data(message.payload)
        if code and not self._trusts(lease.peer):
            refused = InputDone(message.input, message.attempt, 0, payload=message.payload)
            failure = only_data(refused, lease.peer).failure
            self._deliver(item, ev.Deliver(item.call, item.index, failure=failure), now_us)
            return
        if message.item == item.items:
            item.items += 1
            self._act(ev.DeliverItem(item.call, item.index, message.item, message.payload))
        elif message.item < item.items:
            # It runs again, and this one was delivered before.
            self._act(ev.AckItems(event.lease, message.input, message.item + 1))

    def _items_taken(self, event: ev.ItemsTaken, _now_us: int) -> None:
        for lease, number in self._sent(event.call, event.index):
            self._act(ev.AckItems(lease, number, event.items))

    def _piece_added(self, event: ev.PieceAdded, _now_us: int) -> None:
        for lease, number in self._sent(event.call, event.index):
            self._act(ev.SendPiece(lease, number, event.payload))

    def _pieces_taken(self, event: ev.PiecesTaken, _now_us: int) -> None:
        lease, item = self._leases.get(event.lease), self._inputs.get(event.input)
        if lease and item and event.input in lease.inputs:
            self._act(ev.DeliverTaken(item.call, item.index, event.bytes))

    def _sent(self, name: str, index: int) -> Iterator[tuple[str, int]]:
        """(lease, number) wherever an input is."""
        call = self._calls.get(name)
        for number in call.waiting if call else ():
            if self._inputs[number].index == index:
                for lease in self._functions[call.function].leases if call else ():
                    if number in self._leases[lease].inputs:
                        yield lease, number

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
        function.ran(done.run_us, now_us)
        self._hiring.worked(lease)
        item = self._inputs.get(done.input)
        if item:
            data = function.spec.web or self._trusts(lease.peer)
            done = done if data else only_data(done, lease.peer)
            self._settle(function, item, done, now_us)
        self._hiring.pump(function, now_us)

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
        for number in lost:
            item = self._inputs.get(number)
            if item and self._alone(function, number):
                self._lost(function, item, event.why, now_us)
        self._hiring.pump(function, now_us)

    def _pump_all(self, _event: object, now_us: int) -> None:
        self._hiring.pump_all(now_us)

    # Outcomes

    def _alone(self, function: Function, number: int) -> bool:
        """Whether an input is awaited, and from no lease any more."""
        return number in self._inputs and not any(number in self._leases[name].inputs for name in function.leases)

    def _hedgeable(self, number: int) -> bool:
        """Whether an input may run twice: one of a map to which nothing is added any more."""
        item = self._inputs.get(number)
        call = self._calls.get(item.call) if item else None
        return bool(call and call.ended and call.total > 1 and not self._functions[call.function].spec.generator)

    def _settle(self, function: Function, item: Input, done: InputDone, now_us: int) -> None:
        if done.payload is not None:
            self._deliver(item, ev.Deliver(item.call, item.index, payload=done.payload), now_us)
        elif not self._alone(function, item.number):
            return  # it runs a second time elsewhere, which may go better
        elif done.lost:
            self._lost(function, item, done.lost, now_us)
        elif self._may_retry(function, item, done):
            self._retry_later(function, item, now_us)
        elif done.exception is not None:
            self._deliver(item, ev.Deliver(item.call, item.index, exception=done.exception), now_us)
        else:
            failure = done.failure or Failure.of(RemoteProtocolError("The provider reported no outcome."))
            self._deliver(item, ev.Deliver(item.call, item.index, failure=failure), now_us)

    def _may_retry(self, function: Function, item: Input, done: InputDone) -> bool:
        if function.spec.web or item.failures >= function.spec.retries.max_retries:
            return False
        return done.exception is not None or (done.failure is not None and done.failure.kind in _RETRIED_KINDS)

    def _retry_later(self, function: Function, item: Input, now_us: int) -> None:
        item.retry_later(function.spec.retries, now_us)
        function.delayed.append(item.number)

    def _lost(self, function: Function, item: Input, why: str, now_us: int) -> None:
        item.losses += 1
        if function.spec.web and item.began:
            # It may have had its effect, and of what it was sent nothing is kept.
            cut = ExecutionError(f"{function.spec.name} was lost while it answered.", why=why, fix="Send it again.")
            self._deliver(item, ev.Deliver(item.call, item.index, failure=Failure.of(cut)), now_us)
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
        del self._inputs[item.number]
        self._act(action)
        call = self._calls[item.call]
        for name in sorted(self._functions[call.function].leases):
            if item.number in self._leases[name].inputs:
                self._act(ev.AbortInput(name, item.number, "it is over"))
        call.waiting.discard(item.number)
        self._finish_call(item.call, now_us)

    def _finish_call(self, name: str, now_us: int) -> None:
        call = self._calls[name]
        if call.ended and not call.waiting:
            del self._calls[name]
            self.budgets.closed(name)
            self._functions[call.function].calls.discard(name)
            self._act(ev.CallEnded(name))

    def _fail_all(self, function: Function, failure: Failure, now_us: int) -> None:
        if function.keepers:
            self._act(ev.Standing(function.name, failure))
        waiting = [*function.queue, *function.delayed]
        function.queue.clear()
        function.delayed.clear()
        for number in waiting:
            item = self._inputs.get(number)
            if item:
                self._deliver(item, ev.Deliver(item.call, item.index, failure=failure), now_us)

    def _give_up(self, function: Function, now_us: int) -> None:
        """Fail what nobody can ever run, once discovery had its chance."""
        self._heed_verdicts(function, now_us)
        if function.leases or now_us < function.since_us + NO_PEER_GRACE_US:
            return
        offers = self._hiring.offers(now_us)
        if all(misfit(offer, function.spec, self._trusts) for offer in offers):
            notes = [f"{peer[-8:]} is ignored: {skew_text(skew)}" for peer, skew in self._book.skewed.items()]
            self._fail_all(function, Failure.of(no_peer(function.spec, offers, notes, self._trusts)), now_us)

    def _heed_verdicts(self, function: Function, now_us: int) -> None:
        """Fail what would fail anywhere: when two peers say so, or one and there is nobody else to ask. A single peer
        that lies, or is broken, must not end a call."""
        if not function.verdicts:
            return
        others = [offer for offer in self._hiring.offers(now_us) if offer.peer not in function.verdicts]
        alone = all(misfit(offer, function.spec, self._trusts) for offer in others)
        if alone or len(function.verdicts) >= VERDICTS_NEEDED:
            self._fail_all(function, next(iter(function.verdicts.values())), now_us)
