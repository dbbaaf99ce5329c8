"""The session with the local node, sans-IO: bytes in, bytes out, and the state of calls and questions between.

Two thin drivers move the bytes: `client.Client` blocks, `aio.AsyncClient` awaits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from potluck import wire
from potluck.errors import ConnectionError, Error, LocalProtocolError, RemoteProtocolError
from potluck.frames import MessageReader, Outbox
from potluck.wire import Failure, FunctionSpec, control
from potluck.wire.accounts import QuotaReply
from potluck.wire.apps import AppReply, WantFunction
from potluck.wire.audit import AuditReply
from potluck.wire.bench import BenchDone
from potluck.wire.common import Limit
from potluck.wire.contents import join, split
from potluck.wire.doctor import ReachReport
from potluck.wire.doings import MeshDoings
from potluck.wire.history import HistoryReply
from potluck.wire.policy import PolicyReply
from potluck.wire.secrets import SecretReply
from potluck.wire.spawned import SpawnReply
from potluck.wire.state import StateAnswered
from potluck.wire.tokens import TokenReply
from potluck.wire.verify import JudgeResults, ResultsJudged, StrangerReply

if TYPE_CHECKING:
    from potluck.verify import Prepared

# Every so many items a generator is told that they were taken: a few times within what it may be ahead.
ITEMS_ACKED = 16


# Told what the node wants to know of an app that this program runs; set by `running`.
def _nothing(message: WantFunction) -> None: ...


wanted: Callable[[WantFunction], None] = _nothing


class Listener(Protocol):
    """Told what happens meanwhile."""

    def notice(self, message: control.CallNotice) -> None: ...
    def log(self, message: control.CallLog) -> None: ...
    def progress(self, text: str) -> None: ...


class Call:
    """One open call: what was sent, what came back, in order of arrival. `judge` answers what the node asks to verify
    results."""

    def __init__(self, number: int, judge: Callable[[tuple[bytes, ...]], int] | None = None) -> None:
        self.number, self.judge = number, judge
        self.questions: deque[JudgeResults] = deque()
        self.sent = 0
        self.taken = 0
        self.inputs_ended = False
        self._outcomes: deque[control.CallOutcome] = deque()
        self._items: deque[bytes] = deque()
        self.items_taken = 0

    @property
    def room(self) -> bool:
        """Whether another input may be sent now."""
        return self.sent - self.taken < control.INPUTS_AHEAD_MAX

    @property
    def finished(self) -> bool:
        """Whether every outcome was taken and no input will follow."""
        return self.inputs_ended and self.taken == self.sent

    def take(self) -> control.CallOutcome | None:
        """The next outcome that has arrived, or None."""
        if not self._outcomes:
            return None
        self.taken += 1
        return self._outcomes.popleft()

    def take_item(self) -> bytes | control.CallOutcome | None:
        """The next item of a generator that has arrived, its outcome after the last, or None."""
        if self._items:
            self.items_taken += 1
            return self._items.popleft()
        return self.take()

    def put_item(self, item: control.CallItem) -> None:
        if item.index or self.sent != 1:
            raise RemoteProtocolError("The node sent an item for an input that it was not given.")
        self._items.append(item.payload)

    def put(self, outcome: control.CallOutcome) -> None:
        if not 0 <= outcome.index < self.sent:
            raise RemoteProtocolError("The node sent an outcome for an input that it was not given.")
        self._outcomes.append(outcome)


def answered(call: Call, question: JudgeResults) -> tuple[int, Failure | None]:
    """What the call's judge says of some results; runs the caller's own code."""
    assert call.judge, "the node asks nothing of a call without a judge"
    try:
        return call.judge(question.payloads), None
    except Error as error:
        return -1, Failure.of(error)


class Question:
    """A request with one answer, which is None until it comes."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.answer: wire.Message | None = None


class Session:
    """State of one connection. `receive` and the senders are called by a driver; what is to be sent is in `outbox`.

    With `descriptors`, where the driver puts those that come, large payloads travel in sealed memory both ways.
    """

    def __init__(self, listener: Listener, descriptors: deque[int] | None = None) -> None:
        self._listener = listener
        self._descriptors = descriptors is not None
        self._reader = MessageReader(descriptors=descriptors)
        self._numbers = 0
        self._calls: dict[int, Call] = {}
        self._questions: dict[int, Question] = {}
        self.outbox = Outbox()
        # Of what something has arrived, for drivers that wake only whom it concerns; they clear it.
        self.news: set[Call | Question] = set()
        self.welcome: control.Welcome | None = None
        self.lost: ConnectionError | None = None

    def _send(self, message: wire.Message) -> None:
        message, contents = split(message)
        self.outbox.add(wire.encode(message), contents, self._descriptors)

    # Requests

    def hello(self, version: str, client: str) -> Question:
        question = self._questions[0] = Question(0)
        self._send(control.Hello(wire.PROTOCOL, version, client, self._descriptors))
        return question

    def ask(self, make: Callable[[int], wire.Message]) -> Question:
        """Send the question that `make` builds around its number."""
        self._numbers += 1
        question = self._questions[self._numbers] = Question(self._numbers)
        self._send(make(question.number))
        return question

    def leave(self, question: Question, make: Callable[[int], wire.Message]) -> None:
        """Nobody waits for an answer any more; it still comes."""
        self._send(make(question.number))

    def open_call(self, function: FunctionSpec, limit: Limit | None = None, verify: Prepared | None = None) -> Call:
        self._numbers += 1
        call = self._calls[self._numbers] = Call(self._numbers, verify.judge if verify else None)
        self._send(control.OpenCall(call.number, function, limit, verify.wire if verify else None))
        return call

    def judged(self, question: JudgeResults, agrees: int, failure: Failure | None) -> None:
        """Tell what a call's judge said."""
        if question.call in self._calls and not self.lost:
            self._send(ResultsJudged(question.call, question.case, agrees, failure))

    def add_input(self, call: Call, payload: bytes) -> int:
        """Send one input; returns its index. Raises `LocalProtocolError` without `call.room`."""
        if not call.room or call.inputs_ended:
            raise LocalProtocolError("An input was sent that the node did not expect.")
        self._send(control.CallInput(call.number, call.sent, payload))
        call.sent += 1
        return call.sent - 1

    def take_item(self, call: Call) -> bytes | control.CallOutcome | None:
        """As `Call.take_item`; the generator is told now and then, so that it goes on."""
        found = call.take_item()
        if isinstance(found, bytes) and call.items_taken % ITEMS_ACKED == 0:
            self._send(control.ItemsTaken(call.number, 0, call.items_taken))
        return found

    def end_inputs(self, call: Call) -> None:
        if not call.inputs_ended:
            call.inputs_ended = True
            self._send(control.EndInputs(call.number))

    def close_call(self, call: Call, reason: str) -> None:
        """Forget the call; what still runs for it is cancelled."""
        if self._calls.pop(call.number, None) and not call.finished and not self.lost:
            self._send(control.CancelCall(call.number, reason))

    # What arrives

    def receive(self, data: bytes) -> None:
        """Take bytes from the node. Raises `RemoteProtocolError`."""
        for body, contents in self._reader.feed(data):
            self._take(join(wire.decode(body, control.FromNode), contents))

    def connection_lost(self, why: str) -> None:
        """The socket ended: nothing that is awaited will come."""
        self._reader.close()
        self.lost = ConnectionError(
            "The connection to the local node ended.",
            why=why,
            fix="See its log with `potluck status`, then `potluck up`.",
        )

    def _take(self, message: object) -> None:
        if isinstance(message, control.CallItem):
            call = self._calls.get(message.call)
            if call:
                call.put_item(message)
                self.news.add(call)
        elif isinstance(message, control.CallOutcome):
            call = self._calls.get(message.call)
            if call:
                call.put(message)
                self.news.add(call)
        elif isinstance(message, JudgeResults):
            call = self._calls.get(message.call)
            if call:
                call.questions.append(message)
                self.news.add(call)
        elif isinstance(message, control.CallNotice):
            self._listener.notice(message)
        elif isinstance(message, control.CallLog):
            self._listener.log(message)
        elif isinstance(message, WantFunction):
            wanted(message)
        elif isinstance(message, control.Progress):
            self._listener.progress(message.text)
        elif isinstance(message, control.Welcome):
            self.welcome = message
            self._answer(0, message)
        else:
            assert isinstance(
                message,
                control.Refusal
                | control.Done
                | control.ImageBuilt
                | control.Status
                | control.JournalAnswer
                | control.ImageReply
                | control.Stats
                | SpawnReply
                | AppReply
                | SecretReply
                | StateAnswered
                | TokenReply
                | QuotaReply
                | BenchDone
                | AuditReply
                | MeshDoings
                | StrangerReply
                | ReachReport
                | PolicyReply
                | HistoryReply,
            )
            self._answer(message.question, message)

    def _answer(self, number: int, message: wire.Message) -> None:
        question = self._questions.pop(number, None)
        if question is None:
            raise RemoteProtocolError("The node answered a question that was not asked.")
        question.answer = message
        self.news.add(question)
