"""What the node sends to a worker. The main thread reads it, until user code asks for something and waits: from then on
a thread of its own does, so that answers arrive whatever the others do.

Not before: a thread that reads holds the socket open, and the node would not see that user code closed it.
"""

from __future__ import annotations

import _thread
from _queue import SimpleQueue

from .codec import read_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Inbox:
    """`told` takes each answer (number, payload, failure), in whichever thread reads."""

    def __init__(self, fd: int, told: Callable[[int, Any, Any], None]) -> None:
        self._fd, self._told = fd, told
        self._lock = _thread.allocate_lock()
        self._reading = self._wanted = self._apart = False
        self._queue: SimpleQueue[list[Any] | Exception | None] = SimpleQueue()

    def get(self) -> list[Any] | None:
        """In the main thread: the next message that is no answer, None at the end. Raises as `read_message`."""
        while not self._begin():
            message = read_message(self._fd)
            answer = self._take(message)
            self._end(answer)
            if not answer:
                return message
        found = self._queue.get()
        if isinstance(found, Exception):
            raise found
        return found

    def _begin(self) -> bool:
        """Whether somebody else reads; else the main thread does, from now on."""
        with self._lock:
            self._reading = not self._apart
            return self._apart

    def _end(self, answer: bool) -> None:
        with self._lock:
            self._reading = False
            if self._wanted and not answer:
                self._read_apart()

    def listen(self) -> None:
        """In any thread, before it waits for an answer: somebody must read."""
        with self._lock:
            self._wanted = True
            if not self._reading:
                self._read_apart()

    def _read_apart(self) -> None:
        if not self._apart:
            self._apart = True
            _thread.start_new_thread(self._run, ())

    def _run(self) -> None:
        try:
            while (message := read_message(self._fd)) is not None:
                if not self._take(message):
                    self._queue.put(message)
        except (ValueError, OSError) as error:
            self._queue.put(error)
        self._queue.put(None)

    def _take(self, message: list[Any] | None) -> bool:
        """Whether it was an answer."""
        match message:
            case ["StateTold", int(number), payload, failure, *_]:
                self._told(number, payload, failure)
                return True
        return False
