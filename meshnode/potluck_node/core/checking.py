"""Verification in the call core: which inputs are cases, their replicas and canaries, and what follows of answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from potluck.errors import VerificationError
from potluck.wire import Failure, FunctionSpec
from potluck.wire.lease import InputDone
from potluck.wire.verify import Canary, EvidenceFacts, Verification, Vote
from potluck_node.core import events as ev
from potluck_node.core.demand import Call, Function, Input, Lease
from potluck_node.core.hiring import Hiring
from potluck_node.core.levels import Standing
from potluck_node.core.placement import Dice
from potluck_node.core.verify import (
    FAILED,
    RAISED,
    Answer,
    Case,
    Decided,
    Judge,
    More,
    Step,
    Undecided,
    answer_of,
)  # fmt: skip

# A canary is waited for three times as long as inputs take, and at least as long as a machine may pause.
LATE_FACTOR, LATE_MIN_US = 3, 10_000_000
# A provider ends an input at its timeout; one that has not by half a minute later, which is time enough for a machine
# that swaps, lets it hang. It is looked for so often.
OVERDUE_US, LOOK_US = 30_000_000, 10_000_000
# Canaries of a call that wait, or run: more would stand in the way of what is wanted.
CANARIES_WAITING_MAX = 8
# Without a peer for a second replica this is what is said.
_FEW = "too few peers can run it: each replica takes another one"


class Checking:
    """`deliver` gives the one outcome of an input, `retry` has it tried again later if its policy says so, `part` ends
    all leases with a peer; `new` gives a number for an input. `default` is how calls are verified that do not say."""

    def __init__(
        self, hiring: Hiring, calls: dict[str, Call], inputs: dict[int, Input], dice: Dice,
        act: Callable[[ev.Action], None], new: Callable[[], int],
        deliver: Callable[[Input, ev.Deliver, int], None], part: Callable[[str, str, int], None],
    ) -> None:  # fmt: skip
        self._hiring, self._calls, self._inputs, self._dice = hiring, calls, inputs, dice
        self._act, self._new, self._deliver, self._part = act, new, deliver, part
        self.reputation = hiring.reputation
        self.default: Verification | None = None
        # Until when calls wait for canaries alone.
        self.ends: dict[str, int] = {}
        self._looked_us = 0

    def rule(self, spec: FunctionSpec, asked: Verification | None) -> Verification | None:
        """How a call is verified. What streams is not: nothing of it waits to be compared."""
        if spec.web or spec.generator or spec.sharing.batch_size:
            return None
        rule = asked or self.default
        # What compares nothing and knows nothing is no verification.
        return rule if rule and (rule.needed > 1 or rule.single or rule.canaries) else None

    # Inputs and their replicas

    def open(self, item: Input, call: Call, function: Function) -> None:
        """An input of a call that is verified: replicas of it are sent, and it stands for them."""
        assert call.rule
        item.case = Case(item.number, call.rule, item.payload)
        function.cases += 1
        self._replicate(item, function, 1)
        if call.rule.canaries and self._dice.randrange(1000) < call.rule.canary_milli:
            self._open_canary(item.call, call, function)

    def _open_canary(self, name: str, call: Call, function: Function) -> None:
        assert call.rule
        fresh = self._unseen(call, function)
        if not fresh:
            return
        canary = fresh[self._dice.randrange(len(fresh))]
        item = Input(self._new(), name, -1, canary.payload, budgets=call.budgets)
        item.case = Case(item.number, call.rule, canary.payload, canary.expected)
        self._inputs[item.number] = item
        call.waiting.add(item.number)
        function.cases += 1
        self._replicate(item, function, 1)

    def _unseen(self, call: Call, function: Function) -> list[Canary]:
        """Known answers that some stranger who runs the function has not had: who sees an input again knows what it
        is."""
        assert call.rule
        waiting = sum(bool(case and case.is_canary) for case in (self._inputs[each].case for each in call.waiting))
        peers = [lease.peer for lease in self._hiring.of(function) if not self._hiring.standing(lease.peer).code]
        if waiting >= 2 * CANARIES_WAITING_MAX:
            return []
        had = self._hiring.apart.has_had
        return [each for each in call.rule.canaries if not peers or not all(had(peer, each.payload) for peer in peers)]

    def _replicate(self, item: Input, function: Function, count: int, *, first: bool = False) -> list[Input]:
        """More replicas, at the end of the queue or its head."""
        assert item.case
        made = []
        for _ in range(count):
            replica = Input(self._new(), item.call, item.index, item.payload, budgets=item.budgets, case=item.case)
            self._inputs[replica.number] = replica
            self._calls[item.call].waiting.add(replica.number)
            item.case.numbers.add(replica.number)
            if first:
                self._hiring.apart.queue(function, replica.number)
            else:
                function.queue.append(replica.number)
            made.append(replica)
        return made

    def useless(self, name: str, call: Call, function: Function, now_us: int) -> Input | None:
        """A canary that is waited for in vain, once a call waits for nothing else: one that nobody has begun, or whose
        answer takes too long."""
        waiting = [self._inputs[number] for number in call.waiting]
        if not waiting or not all(item.case and item.case.is_canary for item in waiting):
            self.ends.pop(name, None)
            return None
        end_us = self.ends.setdefault(name, now_us + max(LATE_MIN_US, LATE_FACTOR * function.mean_us))
        sent = {number for lease in self._hiring.of(function) for number in lease.inputs}
        left = (item for item in waiting if item.case and (now_us >= end_us or not item.case.numbers & sent))
        return next(left, None)

    def late(self, now_us: int) -> list[str]:
        """Calls that wait for canaries alone, and have waited enough."""
        return [name for name, end_us in self.ends.items() if end_us <= now_us]

    @property
    def late_us(self) -> int | None:
        """When to look at them, and at who lets inputs hang."""
        times = list(self.ends.values())
        if any(function.cases for function in self._hiring.functions.values()):
            times.append(self._looked_us + LOOK_US)
        return min(times, default=None)

    def look(self, now_us: int) -> None:
        """Part from who lets a replica hang: a machine that lies about its end could hold up a call for ever."""
        if now_us < self._looked_us + LOOK_US:
            return
        self._looked_us = now_us
        for peer in sorted({each.peer for each in self._hiring.leases.values() if self._hangs(each, now_us)}):
            self._hiring.strike(peer, now_us)
            self._part(peer, "it lets inputs hang", now_us)

    def _hangs(self, lease: Lease, now_us: int) -> bool:
        function = self._hiring.functions[lease.function]
        if not function.cases:
            return False
        limit_us = function.spec.timeout_us + OVERDUE_US
        for number, sent in lease.inputs.items():
            item = self._inputs.get(number)
            # One that has not begun may wait for another that takes its whole time.
            since_us, most_us = (sent.began_us, limit_us) if sent.began_us else (sent.sent_us, 2 * limit_us)
            if item and item.case and now_us - since_us > most_us:
                return True
        return False

    def awaited(self, call: Call) -> int:
        """Inputs of a call without an outcome."""
        waiting = (self._inputs[number] for number in call.waiting)
        return sum(not item.case or (item.case.number == item.number and item.index >= 0) for item in waiting)

    # Answers

    def answered(self, function: Function, item: Input, lease: Lease, name: str, done: InputDone, now_us: int) -> None:
        """A replica is over."""
        case = item.case
        assert case
        self._forget(item)
        standing = self._hiring.standing(lease.peer)
        answer = answer_of(lease.peer, name, done, self._believed(standing, item.call))
        function.replicas.runs += 1
        function.replicas.all_us += done.run_us
        passes = case.rule.adaptive and not self.reputation.checks(lease.peer, function.spec.image, self._dice)
        self._follow(function, case, case.answered(answer, passes), now_us)

    def _believed(self, standing: Standing, call: str) -> bool:
        """Whom the owner lets run code here could do worse than lie; by default, members are not checked either."""
        by_default = self._calls[call].rule is self.default
        return standing.code or (by_default and standing.verify == "none")

    def gave_up(self, function: Function, item: Input, now_us: int) -> None:
        """A replica was lost too often."""
        assert item.case
        self._forget(item)
        self._follow(function, item.case, item.case.gave_up(), now_us)

    def nobody(self, case: Case, now_us: int) -> None:
        """There is no further peer to ask."""
        item = self._inputs[case.number]
        refused = self._hiring.functions[self._calls[item.call].function].last_refusal
        why = f"{_FEW}; the last refusal: {refused.what}" if refused else _FEW
        self._fail(case, Undecided(why, {each.peer: "undecided" for each in case.answers}), now_us)

    def judged(self, event: ev.ResultsJudged, now_us: int) -> None:
        """The caller's program has compared."""
        item = self._inputs.get(event.case)
        case = item.case if item else None
        if item is None or case is None or item.call != event.call or case.number != item.number:
            return
        function = self._hiring.functions[self._calls[item.call].function]
        if event.failure and not case.is_canary:
            self._deliver(item, ev.Deliver(item.call, item.index, failure=event.failure), now_us)
        else:
            self._follow(function, case, case.judged(-1 if event.failure else event.agrees), now_us)
        self._hiring.pump(function, now_us)

    def _forget(self, item: Input) -> None:
        """One replica; what stands for the case stays."""
        assert item.case
        item.case.numbers.discard(item.number)
        self._inputs.pop(item.number, None)
        self._calls[item.call].waiting.discard(item.number)
        for lease in self._hiring.leases:
            # A copy of it, sent when it was slow: nobody votes for another.
            if item.number in self._hiring.leases[lease].inputs:
                self._act(ev.AbortInput(lease, item.number, "it is over"))

    def _follow(self, function: Function, case: Case, steps: list[Step], now_us: int) -> None:
        item = self._inputs.get(case.number)
        for step in steps:
            if item is None:
                return
            if isinstance(step, More):
                self._replicate(item, function, step.replicas, first=True)
            elif isinstance(step, Judge):
                self._act(ev.AskJudge(item.call, case.number, step.payloads))
            elif isinstance(step, Decided):
                self._decide(function, item, step, now_us)
            else:
                self._fail(case, step, now_us)

    # Outcomes

    def _decide(self, function: Function, item: Input, step: Decided, now_us: int) -> None:
        case, answer = item.case, step.answer
        assert case
        done = answer.done
        if not case.is_canary:
            function.replicas.inputs += 1
            function.replicas.once_us += done.run_us
        if answer.kind in (RAISED, FAILED) and not case.is_canary and self._again(function, item, done, now_us):
            return
        outcome = ev.Deliver(item.call, item.index, done.payload, done.exception, done.failure)
        self._deliver(item, outcome, now_us)
        if step.checked:
            self._judge(function, case, step.verdicts, answer.kind, now_us)

    def _again(self, function: Function, item: Input, done: InputDone, now_us: int) -> bool:
        """Whether it is tried once more, as the function's policy says: then all begins anew."""
        if not function.may_retry(item, done):
            return False
        old = item.case
        assert old
        function.drop(old.numbers)
        for number in sorted(old.numbers):
            self._forget(self._inputs[number])
        item.case = Case(item.number, old.rule, item.payload)
        (replica,) = self._replicate(item, function, 1)
        function.queue.remove(replica.number)
        replica.failures = item.failures
        replica.retry_later(function.spec.retries, now_us)
        item.failures = replica.failures
        function.delayed.append(replica.number)
        return True

    def _fail(self, case: Case, step: Undecided, now_us: int) -> None:
        item = self._inputs.get(case.number)
        if item is None:
            return
        function = self._hiring.functions[self._calls[item.call].function]
        error = VerificationError(
            f"The results of {function.spec.name} for input {item.index} could not be verified.",
            why=step.why,
            fix="See `potluck mesh evidence`. Ask for fewer that agree, bring more peers, or make the function "
            "repeatable: no clock, no random numbers; rtol= for floats.",
        )
        self._deliver(item, ev.Deliver(item.call, item.index, failure=Failure.of(error)), now_us)
        self._judge(function, case, step.verdicts, "undecided", now_us)

    def _judge(self, function: Function, case: Case, verdicts: dict[str, str], outcome: str, now_us: int) -> None:
        """Remember who was right, keep why, and part from liars."""
        spec, liars = function.spec, []
        for answer in case.answers:
            verdict = verdicts[answer.peer]
            if answer.believed or verdict == "undecided":
                continue
            proof = case.is_canary and answer.kind not in (RAISED, FAILED)
            if self.reputation.verdict(answer.peer, spec.image, verdict == "right", now_us, proof=proof):
                liars.append(answer.peer)
        if case.answers:
            self._act(ev.Judged(_evidence(spec, case, verdicts, outcome, now_us)))
        for peer in liars:
            self._part(peer, self.reputation.banned(peer, now_us), now_us)


def _evidence(spec: FunctionSpec, case: Case, verdicts: dict[str, str], outcome: str, now_us: int) -> EvidenceFacts:
    rule = case.rule
    kind = "canary" if case.is_canary else "check" if rule.single else "adaptive" if rule.adaptive else "quorum"
    votes = tuple(Vote(each.peer, each.lease, _said(each), verdicts[each.peer]) for each in case.answers)
    digest = hashlib.sha256(case.payload).hexdigest()
    return EvidenceFacts(now_us, kind, spec.app, spec.name, spec.image, digest, outcome, votes)


def _said(answer: Answer) -> str:
    return answer.digest if answer.kind == "value" else f"{answer.kind} {answer.digest[:64]}"
