"""Commands in a sandbox, and their streams. Names and meaning are Modal's."""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from potluck.asking import Both, Steps, drive, drive_async
from potluck.errors import ExecTimeoutError, NotFoundError, RemoteProtocolError

if TYPE_CHECKING:
    from potluck.wire.sandbox import Answer, Ended, Piece, Request, Result

T = TypeVar("T", bound=str | bytes)


def errand(call: str, request: Request, answer: type[Any], *, secret: bool = False) -> Steps[Any]:
    """Have a sandbox do something, with a `secret` on a trusted peer alone. Raises `NotFoundError` once it has ended,
    and what the agent raised."""
    from potluck import wire
    from potluck.errors import from_kind
    from potluck.wire.errands import Reported, Send
    from potluck.wire.sandbox import Answer, Failed

    found: Reported = yield Send(call, wire.encode(request), secret)
    reported: Answer = wire.decode(found.payload, Answer)
    if isinstance(reported, Failed):
        failure = reported.failure
        raise from_kind(failure.kind, failure.what, why=failure.why, fix=failure.fix)
    if not isinstance(reported, answer):
        raise RemoteProtocolError("The sandbox answered something else.")
    return reported


class StreamReader(Generic[T]):
    """What a command prints. Iterate over it for lines (without `text`, for pieces), or `read()` all until its end;
    what was read once does not come again. All has `.aio` twins, and `async for` works."""

    def __init__(self, call: str, process: int, stream: int, text: bool, kept: Callable[[], Result] | None) -> None:
        self._call, self._process, self._stream, self._text, self._kept = call, process, stream, text, kept
        self._offset, self._at_end = 0, False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self.read: Both[[], T] = Both(self._read)

    def _take(self) -> Steps[bytes]:
        """The next piece; empty at the end."""
        from potluck.wire.sandbox import WAIT_US_MAX, Piece, Take

        while not self._at_end:
            request = Take(self._process, self._stream, self._offset, WAIT_US_MAX)
            try:
                piece: Piece = yield from errand(self._call, request, Piece)
            except NotFoundError:
                piece = self._rest_of(self._kept)
            self._offset += len(piece.data)
            self._at_end = piece.end
            if piece.data:
                return piece.data
        return b""

    def _rest_of(self, kept: Callable[[], Result] | None) -> Piece:
        """Once the sandbox has ended: what was kept of its own command's output."""
        from potluck.wire.sandbox import STDOUT, Piece

        if kept is None:
            raise NotFoundError(
                "What this command printed is gone.", why="its sandbox has ended, or it and many others"
            )
        result = kept()
        is_out = self._stream == STDOUT
        data, start = (result.stdout, result.stdout_from) if is_out else (result.stderr, result.stderr_from)
        return Piece(data[max(0, self._offset - start) :], end=True)

    def _read(self) -> Steps[T]:
        pieces = []
        while data := (yield from self._take()):
            pieces.append(data)
        whole = b"".join(pieces)
        return cast(T, self._rest + self._decoder.decode(whole, final=True) if self._text else whole)

    def _next(self) -> Steps[T | None]:
        """A line, or a piece; None at the end."""
        if not self._text:
            return cast("T | None", (yield from self._take()) or None)
        while "\n" not in self._rest and (data := (yield from self._take())):
            self._rest += self._decoder.decode(data)
        line, newline, self._rest = self._rest.partition("\n")
        return cast("T | None", (line + newline) or None)

    def __iter__(self) -> Iterator[T]:
        while (found := drive(self._next())) is not None:
            yield found

    async def __aiter__(self) -> AsyncIterator[T]:
        while (found := await drive_async(self._next())) is not None:
            yield found


class StreamWriter:
    """Standard input of a command. `write` keeps data until `drain()` sends it; `write_eof` closes it."""

    def __init__(self, call: str, process: int) -> None:
        self._call, self._process = call, process
        self._waiting, self._end = bytearray(), False
        self.drain = Both(self._drain)

    def write(self, data: bytes | bytearray | memoryview | str) -> None:
        """Add text or bytes. Raises `ValueError` after `write_eof`."""
        if self._end:
            raise ValueError("write after write_eof()")
        self._waiting += data.encode() if isinstance(data, str) else data

    def write_eof(self) -> None:
        """There is no more."""
        self._end = True

    def _drain(self) -> Steps[None]:
        """Send what was written; waits until the command has room for it. Raises `InvalidError` when it takes no
        more."""
        from potluck.wire.sandbox import PIECE_BYTES_MAX, Done, Feed

        data, self._waiting = bytes(self._waiting), bytearray()
        starts = range(0, max(1, len(data)), PIECE_BYTES_MAX)
        for start in starts:
            piece, is_last = data[start : start + PIECE_BYTES_MAX], start == starts[-1]
            if piece or self._end:
                yield from errand(self._call, Feed(self._process, piece, self._end and is_last), Done)


class ContainerProcess(Generic[T]):
    """A command that `Sandbox.exec` began."""

    def __init__(self, call: str, process: int, text: bool) -> None:
        from potluck.wire.sandbox import STDERR, STDOUT

        self._call, self._process, self._code = call, process, None
        self.stdin = StreamWriter(call, process)
        self.stdout: StreamReader[T] = StreamReader(call, process, STDOUT, text, None)
        self.stderr: StreamReader[T] = StreamReader(call, process, STDERR, text, None)
        self.wait = Both(self._wait)
        self.poll = Both(self._poll)

    _code: int | None

    @property
    def returncode(self) -> int:
        """Its exit status. Raises `ValueError` before `wait()` or `poll()` had it."""
        if self._code is None:
            raise ValueError("call wait() first, or poll()")
        return self._code

    def _wait(self) -> Steps[int]:
        """Until it ends; returns its exit status, 128 + n for the signal n. Raises `ExecTimeoutError` when its
        `timeout` was over, and `NotFoundError` when the sandbox ended first."""
        from potluck.wire.sandbox import WAIT_US_MAX

        while (code := (yield from self._ask(WAIT_US_MAX))) is None:
            pass
        return code

    def _poll(self) -> Steps[int | None]:
        """Its exit status; None while it runs."""
        return (yield from self._ask(0))

    def _ask(self, wait_us: int) -> Steps[int | None]:
        from potluck.wire.sandbox import Await, Ended

        if self._code is None:
            found: Ended = yield from errand(self._call, Await(self._process, wait_us), Ended)
            if found.late:
                raise ExecTimeoutError("The command ran longer than its timeout.", fix="Give exec() a larger timeout=.")
            self._code = found.returncode
        return self._code
