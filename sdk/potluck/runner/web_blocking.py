"""A request that is answered in a thread of its own."""

from __future__ import annotations

from _queue import SimpleQueue

from .web import BODY_BYTES_MAX, Exchange

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .codec import Message


class ClientGone(Exception):  # noqa: N818 - nobody's mistake
    """Nobody waits for the rest of the answer."""


class BlockingExchange(Exchange):
    """`next` is for one thread, what answers for one as well."""

    def __init__(self, worker: Any, number: int, request: Message) -> None:
        super().__init__(worker, number, request)
        self._came: Any = SimpleQueue()
        self._ended = False
        # Ends what the answer waits for, once the client has gone.
        self.abort: Callable[[], object] = lambda: None

    def feed(self, piece: Message | None) -> None:
        self._came.put(piece)
        if piece is None:
            self.abort()

    def next(self) -> Message | None:
        """Wait for the next piece; None once the client has gone."""
        if self._ended:
            return None
        self.want()
        piece = self._came.get()
        if piece is None:
            self._ended = True
            return None
        *fields, size = piece
        self.took(size)
        return list(fields)

    def check(self) -> None:
        """Raises `ClientGone`."""
        if self.gone:
            raise ClientGone

    def show(self, status: int, headers: Any, body: bytes, more: bool) -> None:
        """The head, with the first of the body."""
        self.check()
        self.emit(["ResponseHead", status, headers, body[:BODY_BYTES_MAX], more or len(body) > BODY_BYTES_MAX])
        if len(body) > BODY_BYTES_MAX:
            self.show_more(body[BODY_BYTES_MAX:], more)

    def show_more(self, body: bytes, more: bool) -> None:
        """More of the body."""
        for start in range(0, max(1, len(body)), BODY_BYTES_MAX):
            self.check()
            part = body[start : start + BODY_BYTES_MAX]
            self.emit(["BodyPiece", part, more or start + len(part) < len(body)])
