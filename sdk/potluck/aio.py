"""The awaiting driver of a session, for asyncio: behind every `.aio`. One connection for each event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from potluck import __version__, wire
from potluck.client import HELLO_TIMEOUT_S, READ_BYTES, _next, answer_of, connect
from potluck.errors import ConnectionError, RemoteProtocolError
from potluck.session import Call, Listener, Question, Session, answered
from potluck.wire import FunctionSpec, control
from potluck.wire.common import Limit
from potluck.wire.verify import JudgeResults

if TYPE_CHECKING:
    from potluck.verify import Prepared

T = TypeVar("T")
AnswerT = TypeVar("AnswerT", bound=wire.Message)


class AsyncClient:
    """Make with `await AsyncClient.connect(…)`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener: Listener) -> None:
        self._reader, self._writer = reader, writer
        self._session = Session(listener)
        # Of each call and question that somebody waits for; a thousand may wait at once.
        self._waits: dict[Call | Question, asyncio.Event] = {}
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, path: Path, listener: Listener) -> AsyncClient:
        """Raises `ConnectionError` when nobody answers at `path`."""
        reader, writer = await asyncio.open_unix_connection(sock=connect(path))
        self = cls(reader, writer, listener)
        try:
            await self._greet()
        except BaseException:
            self.abort()
            raise
        return self

    async def _greet(self) -> None:
        question = self._session.hello(__version__, "sdk")
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                await self._await(question, control.Welcome)
        except TimeoutError:
            raise ConnectionError(
                "The local node does not answer.", fix="Restart it: `potluck down`, `potluck up`."
            ) from None

    async def aclose(self) -> None:
        """End the connection; the node cancels whatever was still running for it."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._writer.close()

    def abort(self) -> None:
        """As `aclose`, without waiting."""
        self._task.cancel()
        self._writer.close()

    @property
    def lost(self) -> bool:
        """Whether the connection has ended."""
        return self._session.lost is not None

    async def ask(
        self,
        make: Callable[[int], wire.Message],
        kind: type[AnswerT],
        leave: Callable[[int], wire.Message] | None = None,
    ) -> AnswerT:
        """Ask and wait. Raises the node's error. The node is told by what `leave` makes when waiting is cancelled."""
        question = self._session.ask(make)
        try:
            return await self._await(question, kind)
        except asyncio.CancelledError:
            if leave and question.answer is None and not self.lost:
                self._session.leave(question, leave)
                self._write_now()
            raise

    async def _await(self, question: Question, kind: type[AnswerT]) -> AnswerT:
        await self._flush()
        return answer_of(await self._wait(question, lambda: question.answer), kind)

    def open_call(self, function: FunctionSpec, limit: Limit | None = None, verify: Prepared | None = None) -> Call:
        return self._session.open_call(function, limit, verify)

    async def add_input(self, call: Call, payload: bytes, last: bool = False) -> int:
        """Send one input, `last` of all or not; returns its index."""
        index = self._session.add_input(call, payload)
        if last:
            self._session.end_inputs(call)
        await self._flush()
        return index

    async def end_inputs(self, call: Call) -> None:
        self._session.end_inputs(call)
        await self._flush()

    def close_call(self, call: Call, reason: str) -> None:
        """Not awaitable, so that it also works while a task is being cancelled."""
        self._session.close_call(call, reason)
        self._waits.pop(call, None)
        self._write_now()

    def _write_now(self) -> None:
        while piece := self._session.outbox.next():
            self._writer.write(piece.data)

    async def take(self, call: Call) -> control.CallOutcome:
        """Wait for the call's next outcome."""
        while True:
            found: JudgeResults | control.CallOutcome = await self._wait(call, partial(_next, call))
            if not isinstance(found, JudgeResults):
                return found
            # In a thread: the caller's own code may take its time.
            agrees, failure = await asyncio.to_thread(answered, call, found)
            self._session.judged(found, agrees, failure)
            await self._flush()

    async def take_item(self, call: Call) -> bytes | control.CallOutcome:
        """Wait for the next item of a generator; its outcome comes after the last."""
        found: bytes | control.CallOutcome = await self._wait(call, lambda: self._session.take_item(call))
        await self._flush()
        return found

    def take_nowait(self, call: Call) -> control.CallOutcome | None:
        return call.take()

    async def _flush(self) -> None:
        while piece := self._session.outbox.next():
            self._writer.write(piece.data)
            with suppress(OSError):
                await self._writer.drain()

    async def _wait(self, of: Call | Question, ready: Callable[[], T | None]) -> T:
        while (found := ready()) is None:
            if self._session.lost:
                raise self._session.lost
            await self._waits.setdefault(of, asyncio.Event()).wait()
        return found

    def _tell(self) -> None:
        for each in self._session.news:
            if event := self._waits.pop(each, None):
                event.set()
        self._session.news.clear()

    async def _read(self) -> None:
        why = "the node closed it"
        try:
            while data := await self._reader.read(READ_BYTES):
                try:
                    self._session.receive(data)
                finally:
                    self._tell()
        except (OSError, RemoteProtocolError) as error:
            why = str(error)
        finally:
            # Also when the event loop ends: nobody else may be there to do it.
            self._writer.close()
        self._session.connection_lost(why)
        for event in self._waits.values():
            event.set()
        self._waits.clear()
