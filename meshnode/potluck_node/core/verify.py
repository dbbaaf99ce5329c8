"""One input whose result is verified: answers of peers come in, and what follows of them comes out. Pure.

A result is delivered when `needed` different peers gave the same one, when a peer gave it that the owner trusts, or
when the caller's own check says that it is right. Results are the same when their bytes are: results of strangers are
data, which has one form (`potluck.runner.plain`). Where bytes differ, the caller's program judges, if it can.

    open → (judging → open)* → decided | failed      at most `most` answers, so that each case ends
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, field

from potluck.wire.lease import InputDone
from potluck.wire.verify import Verification

VALUE, RAISED, FAILED = "value", "raised", "failed"


@dataclass(slots=True)
class Answer:
    """What one peer answered. `believed`: the owner trusts the peer. `group` is that of answers that are the same; None
    while it is not known, and for one that the caller's check found wrong (`refuted`)."""

    peer: str
    lease: str
    done: InputDone
    kind: str
    digest: str
    believed: bool = False
    group: int | None = None
    refuted: bool = False


@dataclass(frozen=True, slots=True)
class Judge:
    """Ask the caller's program with which of these results the first is the same."""

    payloads: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class More:
    """Have so many further peers run it."""

    replicas: int


@dataclass(frozen=True, slots=True)
class Decided:
    """Deliver this answer; `verdicts` has each peer with right, wrong or undecided. Not `checked`: nothing was
    compared."""

    answer: Answer
    verdicts: dict[str, str]
    checked: bool = True


@dataclass(frozen=True, slots=True)
class Undecided:
    """The peers did not agree, and no more may be asked."""

    why: str
    verdicts: dict[str, str]


Step = Judge | More | Decided | Undecided


def answer_of(peer: str, lease: str, done: InputDone, believed: bool) -> Answer:
    """An outcome in the form in which it is compared. Of an exception the traceback is not: it has paths in it."""
    if done.payload is not None:
        return Answer(peer, lease, done, VALUE, hashlib.sha256(done.payload).hexdigest(), believed)
    if done.exception is not None:
        raised = done.exception
        data = f"{raised.type_name}\0{raised.message}".encode() + raised.arguments
        return Answer(peer, lease, done, RAISED, hashlib.sha256(data).hexdigest(), believed)
    return Answer(peer, lease, done, FAILED, done.failure.kind if done.failure else "lost", believed)


@dataclass(slots=True)
class Case:
    """`rule` says what is wanted; `expected` is the known result of a canary. `numbers` are the replicas on their way,
    kept by whoever sends them."""

    number: int
    rule: Verification
    payload: bytes = b""
    expected: bytes = b""
    numbers: set[int] = field(default_factory=set)
    answers: list[Answer] = field(default_factory=list)
    lost: int = 0
    shown: int = 0
    model: str | None = None
    stuck_us: int = 0
    over: bool = False
    _judging: deque[Answer] = field(default_factory=deque)
    _asked: list[int] = field(default_factory=list)

    @property
    def is_canary(self) -> bool:
        return bool(self.expected)

    @property
    def is_fresh(self) -> bool:
        """Whether any peer may have its only replica."""
        return not self.answers and len(self.numbers) == 1 and not self.expected

    def shows(self, number: int) -> bool:
        """Whether a replica is the one whose prints are shown: the first that prints."""
        if self.is_canary:
            return False
        self.shown = self.shown or number
        return self.shown == number

    def has_answered(self, peer: str) -> bool:
        """Whether a peer has had its say: nobody votes twice."""
        return any(each.peer == peer for each in self.answers)

    # What happens

    def answered(self, answer: Answer, passes: bool = False) -> list[Step]:
        """A peer answered. With `passes`, its record lets the first answer pass unchecked."""
        if self.over or self.has_answered(answer.peer):
            return []
        self.answers.append(answer)
        if passes and len(self.answers) == 1 and not answer.believed and self.rule.adaptive:
            return self._decide(answer, checked=False)
        if self.is_canary:
            return self._canary_answered(answer)
        if self._settled(answer):
            return self._next()
        if self._needs_judge(answer):
            self._judging.append(answer)
            return self._ask()
        answer.group = self._new_group()
        return self._next()

    def judged(self, agrees: int) -> list[Step]:
        """The caller's program said with which the answer that was asked about agrees: -1 for none."""
        if self.over or not self._judging:
            return []
        answer = self._judging.popleft()
        groups, self._asked = self._asked, []
        if self.is_canary:
            return self._canary_judged(answer, agrees == 0)
        if self.rule.single:
            answer.refuted = agrees != 0
            answer.group = None if answer.refuted else self._new_group()
        else:
            answer.group = groups[agrees] if 0 <= agrees < len(groups) else self._new_group()
        return [*self._next(), *self._ask()]

    def gave_up(self) -> list[Step]:
        """A replica was lost again and again, and is not sent any more."""
        self.lost += 1
        return self._next()

    # What follows

    def _needs_judge(self, answer: Answer) -> bool:
        if answer.kind != VALUE or not self.rule.judged or (answer.believed and self.rule.single):
            return False
        return self.rule.single or any(each.kind == VALUE and each is not answer for each in self.answers)

    def _ask(self) -> list[Step]:
        """The next question, unless one is open."""
        if self.over or self._asked or not self._judging:
            return []
        answer = self._judging[0]
        if self._settled(answer):
            # One with the same bytes was judged meanwhile.
            self._judging.popleft()
            return [*self._next(), *self._ask()]
        if self.rule.single or self.is_canary:
            self._asked = [0]
            others = [self.expected] if self.is_canary else []
            return [Judge((self.payload, _bytes(answer), *others))]
        firsts: dict[int, Answer] = {}
        for each in self.answers:
            if each.group is not None and each.kind == VALUE:
                firsts.setdefault(each.group, each)
        self._asked = list(firsts)
        return [Judge((self.payload, _bytes(answer), *map(_bytes, firsts.values())))]

    def _settled(self, answer: Answer) -> bool:
        """Whether it is the same, byte for byte, as one of which all is known."""
        for each in self.answers:
            if each is not answer and _same_bytes(each, answer) and (each.group is not None or each.refuted):
                answer.group, answer.refuted = each.group, each.refuted
                return True
        return False

    def _needed(self, kind: str) -> int:
        """How many must give the same: what is no value cannot be checked by itself."""
        return 2 if self.rule.single and kind != VALUE else self.rule.needed

    def _new_group(self) -> int:
        return 1 + max((each.group for each in self.answers if each.group is not None), default=-1)

    def _next(self) -> list[Step]:
        if self.over:
            return []
        missing = [self._needed(VALUE)]
        for each in self.answers:
            if each.group is None:
                continue
            size = sum(other.group == each.group for other in self.answers)
            if each.believed or size >= self._needed(each.kind):
                alone = size == 1 and not each.believed and not (self.rule.single and each.kind == VALUE)
                return self._decide(each, checked=not alone)
            missing.append(self._needed(each.kind) - size)
        coming = len(self.numbers) + len(self._judging)
        short = min(missing) - coming
        room = self.rule.most - len(self.answers) - len(self.numbers) - self.lost
        if short > 0 and room > 0:
            return [More(min(short, room))]
        if not coming:
            return self._fail()
        return []

    def _decide(self, answer: Answer, checked: bool = True) -> list[Step]:
        self.over = True
        verdicts = {each.peer: self._verdict(each, answer) if checked else "undecided" for each in self.answers}
        return [Decided(answer, verdicts, checked)]

    def _verdict(self, each: Answer, winner: Answer) -> str:
        if each.refuted:
            return "wrong"
        if FAILED in (each.kind, winner.kind) or (each.group is None and each is not winner):
            return "undecided"
        return "right" if each.group == winner.group else "wrong"

    def _fail(self) -> list[Step]:
        self.over = True
        verdicts = {each.peer: "wrong" if each.refuted else "undecided" for each in self.answers}
        groups = {(each.kind, each.group) for each in self.answers}
        why = f"{len(self.answers)} peers gave {len(groups)} different answers"
        if self.rule.single:
            why = f"the check found no answer of {len(self.answers)} peers right"
        return [Undecided(why, verdicts)]

    # Canaries

    def _canary_answered(self, answer: Answer) -> list[Step]:
        if answer.kind == VALUE and _bytes(answer) != self.expected and self.rule.judged:
            self._judging.append(answer)
            return self._ask()
        return self._canary_judged(answer, answer.kind == VALUE and _bytes(answer) == self.expected)

    def _canary_judged(self, answer: Answer, right: bool) -> list[Step]:
        self.over = True
        undecided = answer.kind == FAILED or answer.believed
        verdict = "undecided" if undecided else "right" if right else "wrong"
        return [Decided(answer, {answer.peer: verdict})]


def _bytes(answer: Answer) -> bytes:
    return answer.done.payload or b""


def _same_bytes(one: Answer, other: Answer) -> bool:
    return (one.kind, one.digest) == (other.kind, other.digest)
