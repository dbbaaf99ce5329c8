"""The blocking driver of a session: one socket, any number of threads.

No thread of its own: whoever waits reads the socket, one thread at a time, for all (leader and followers).
"""

from __future__ import annotations

import array
import socket
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from potluck import __version__, wire
from potluck.errors import ConnectionError, RemoteProtocolError
from potluck.frames import ANCILLARY_BYTES, Piece
from potluck.session import Call, Listener, Question, Session, answered
from potluck.wire import FunctionSpec, control
from potluck.wire.common import Limit
from potluck.wire.verify import JudgeResults

if TYPE_CHECKING:
    from potluck.verify import Prepared

T = TypeVar("T")
AnswerT = TypeVar("AnswerT", bound=wire.Message)

READ_BYTES = 256 << 10
# A live node answers `Hello` at once; this long only when the machine is out of memory.
HELLO_TIMEOUT_S = 10.0


class Client:
    """A connection to the local node. Raises `ConnectionError` when nobody answers at `path`; with `timeout_s`, also
    when any later answer takes longer."""

    def __init__(self, path: Path, listener: Listener, name: str = "sdk", timeout_s: float | None = None) -> None:
        self._timeout_s = timeout_s or HELLO_TIMEOUT_S
        self._socket = connect(path)
        self._descriptors: deque[int] = deque()
        self._session = Session(listener, self._descriptors)
        self._turn = threading.Condition()
        self._reading = False
        self._sending = threading.Lock()
        self._socket.settimeout(self._timeout_s)
        self.welcome = self._await(self._session.hello(__version__, name), control.Welcome)
        self._socket.settimeout(timeout_s)

    @property
    def lost(self) -> bool:
        """Whether the connection has ended."""
        return self._session.lost is not None

    def close(self) -> None:
        """End the connection; the node cancels whatever was still running for it."""
        self._socket.close()

    @property
    def gone(self) -> bool:
        """Whether the node has closed the connection, be it that nobody has read that yet."""
        with self._turn:
            if self.lost or self._reading:
                return self.lost
            try:
                return not self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except OSError:
                return True

    def ask(
        self,
        make: Callable[[int], wire.Message],
        kind: type[AnswerT],
        leave: Callable[[int], wire.Message] | None = None,
    ) -> AnswerT:
        """Ask and wait. Raises the node's error. The node is told by what `leave` makes when waiting is broken off."""
        with self._turn:
            question = self._session.ask(make)
        try:
            return self._await(question, kind)
        except BaseException:
            if leave and question.answer is None and not self.lost:
                with self._turn:
                    self._session.leave(question, leave)
                self._flush()
            raise

    def _await(self, question: Question, kind: type[AnswerT]) -> AnswerT:
        self._flush()
        return answer_of(self._wait(lambda: question.answer), kind)

    def open_call(self, function: FunctionSpec, limit: Limit | None = None, verify: Prepared | None = None) -> Call:
        with self._turn:
            return self._session.open_call(function, limit, verify)

    def add_input(self, call: Call, payload: bytes, last: bool = False) -> int:
        """Send one input, `last` of all or not; returns its index."""
        with self._turn:
            index = self._session.add_input(call, payload)
            if last:
                self._session.end_inputs(call)
        self._flush()
        return index

    def end_inputs(self, call: Call) -> None:
        with self._turn:
            self._session.end_inputs(call)
        self._flush()

    def close_call(self, call: Call, reason: str) -> None:
        with self._turn:
            self._session.close_call(call, reason)
        self._flush()

    def take(self, call: Call) -> control.CallOutcome:
        """Wait for the call's next outcome."""
        while True:
            found = cast("JudgeResults | control.CallOutcome", self._wait(partial(_next, call)))
            if not isinstance(found, JudgeResults):
                return found
            self._judge(call, found)

    def take_item(self, call: Call) -> bytes | control.CallOutcome:
        """Wait for the next item of a generator; its outcome comes after the last."""
        take: Callable[[], bytes | control.CallOutcome | None] = partial(self._session.take_item, call)
        found = self._wait(take)
        self._flush()
        return found  # type: ignore[return-value]

    def take_nowait(self, call: Call) -> control.CallOutcome | None:
        """The call's next outcome if it has arrived."""
        while True:
            with self._turn:
                found = _next(call)
            if not isinstance(found, JudgeResults):
                return found
            self._judge(call, found)

    def _judge(self, call: Call, question: JudgeResults) -> None:
        """The caller's own code may take its time, and call functions itself: nobody else waits for it."""
        agrees, failure = answered(call, question)
        with self._turn:
            self._session.judged(question, agrees, failure)
        self._flush()

    def _flush(self) -> None:
        with self._sending:
            while True:
                with self._turn:
                    piece = self._session.outbox.next()
                if piece is None:
                    return
                try:
                    send_piece(self._socket, piece)
                except OSError as error:
                    with self._turn:
                        self._session.connection_lost(str(error))

    def _wait(self, ready: Callable[[], T | None]) -> T:
        """Wait until `ready` gives something, reading for everybody whenever nobody else does."""
        with self._turn:
            while (found := ready()) is None:
                if self._session.lost:
                    raise self._session.lost
                if self._reading:
                    self._turn.wait()
                else:
                    self._read_once()
        return found

    def _read_once(self) -> None:
        self._reading = True
        self._turn.release()
        data, why = b"", "the node closed it"
        try:
            data = receive(self._socket, self._descriptors)
        except TimeoutError:
            why = f"it did not answer within {self._timeout_s:g} s"
        except OSError as error:
            why = str(error)
        finally:
            self._turn.acquire()
            self._reading = False
            self._turn.notify_all()
        if not data:
            self._session.connection_lost(why)
            return
        try:
            self._session.receive(data)
        except RemoteProtocolError as error:
            self._session.connection_lost(str(error))
        self._session.news.clear()


def _next(call: Call) -> JudgeResults | control.CallOutcome | None:
    return call.questions.popleft() if call.questions else call.take()


def send_piece(connection: socket.socket, piece: Piece) -> None:
    """Raises `OSError`."""
    data = piece.data
    if piece.descriptor >= 0:
        data = data[socket.send_fds(connection, [data], [piece.descriptor]) :]
    connection.sendall(data)


def receive(connection: socket.socket, descriptors: deque[int]) -> bytes:
    """The next bytes; descriptors that come along are added to `descriptors`. Raises `OSError`."""
    data, ancillary, _, _ = connection.recvmsg(READ_BYTES, ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.extend(array.array("i", content[: len(content) // 4 * 4]))
    return data


def connect(path: Path) -> socket.socket:
    """Raises `ConnectionError` when nobody listens at `path`."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        raise ConnectionError(
            "No node answers on this machine.", why=f"{path}: {error.strerror}", fix="Start one with `potluck up`."
        ) from None
    return connection


def answer_of(answer: wire.Message, kind: type[AnswerT]) -> AnswerT:
    """The answer as `kind`; a refusal is raised as the error it carries."""
    if isinstance(answer, control.Refusal):
        raise answer.failure.error()
    if not isinstance(answer, kind):
        raise RemoteProtocolError(f"The node answered with {type(answer).__name__} instead of {kind.__name__}.")
    return answer
