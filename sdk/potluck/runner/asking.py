"""Requests of the user's code to its caller's node, over the worker's socket. The SDK packs and unpacks them.

Any thread of the worker may ask, and waits by itself; the answers are told by the thread that reads the socket.
"""

from __future__ import annotations

import _thread
import os

from . import current as current_input
from .codec import Parts
from .memory import INLINE_BYTES_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .output import Output

    # Takes the answer and the fields of a failure, one of them; or neither, when there is reason to look up.
    Tell = Callable[[Any, "list[Any] | None"], object]

# That of this worker; None in the zygote, where there is nobody to ask.
current: Asking | None = None


class Asking:
    """`as_data` says whether values must be sent as data, once an input has told."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._lock = _thread.allocate_lock()
        self._numbers = 0
        self._waiting: dict[int, tuple[int, Tell]] = {}
        self._pid = os.getpid()
        self.as_data: bool | None = None
        # Makes sure that somebody reads the answers.
        self.listen: Callable[[], None] = lambda: None

    @property
    def is_here(self) -> bool:
        """Whether this process is the worker, and no copy of it."""
        return os.getpid() == self._pid

    def begin(
        self, payload: bytes, tell: Tell, about: str = "", waits: bool = False, streams: bool = False,
        kind: str = "StateAsked",
    ) -> int:  # fmt: skip
        """Send a request, as `wire.state.StateAsked`, or `wire.worker.MountAsked`; `tell` is called once, by another
        thread. Returns its number."""
        with self._lock:
            self._numbers += 1
            number = self._numbers
            self._waiting[number] = _thread.get_ident(), tell
        self.listen()
        large: Any = Parts([payload])
        body = large if len(payload) > INLINE_BYTES_MAX else payload
        rest = (current_input.get()[0], about, waits, streams) if kind == "StateAsked" else ()
        self._output.send([kind, number, body, *rest])
        return number

    def drop(self, number: int) -> None:
        """Wait no longer."""
        with self._lock:
            waited = self._waiting.pop(number, None)
        if waited:
            self._output.send(["StateDropped", number])

    def told(self, number: int, payload: Any, failure: list[Any] | None) -> None:
        """The answer came."""
        with self._lock:
            waiting = self._waiting.pop(number, None)
        if waiting:
            waiting[1](payload, failure)

    def rouse(self, thread: int) -> None:
        """Let a thread that waits look up: what was raised in it from outside is seen only then."""
        with self._lock:
            waiting = [tell for ident, tell in self._waiting.values() if ident == thread]
        for tell in waiting:
            tell(None, None)
