"""Drives a core: one event at a time, its actions in order, a tick when it asked for one."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import trio

from potluck_node.clock import Clock

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("potluck.engine")

E = TypeVar("E", contravariant=True)
A = TypeVar("A", covariant=True)
EventT = TypeVar("EventT")
ActionT = TypeVar("ActionT")


class Core(Protocol[E, A]):
    @property
    def wake_us(self) -> int | None: ...

    def handle(self, event: E, now_us: int, /) -> Sequence[A]: ...


class Engine(Generic[EventT, ActionT]):
    """`submit` may be called from anywhere in the event loop, also by an action: events are queued, never nested."""

    def __init__(self, core: Core[EventT, ActionT], do: Callable[[ActionT], None], tick: EventT, clock: Clock) -> None:
        self._core, self._do, self._tick, self._clock = core, do, tick, clock
        self._queue: deque[EventT] = deque()
        self._running = False
        self._sleep = trio.CancelScope()
        # When the sleep ends, in the clock's time; None for never.
        self._wake_us: int | None = None

    def submit(self, event: EventT) -> None:
        """Handle one event and whatever it causes."""
        self._queue.append(event)
        if self._running:
            return
        self._running = True
        try:
            while self._queue:
                for action in self._core.handle(self._queue.popleft(), self._clock.now_us()):
                    self._do(action)
        finally:
            self._running = False
        self._plan()

    def _plan(self) -> None:
        """Sleep no longer than the core wants. What it wants later is seen then: to move a deadline takes as long as
        many an event."""
        wake_us = self._core.wake_us
        if wake_us is not None and (self._wake_us is None or wake_us < self._wake_us):
            self._wake_us = wake_us
            self._sleep.deadline = trio.current_time() + max(0, wake_us - self._clock.now_us()) / 1e6

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send ticks until cancelled."""
        task_status.started()
        while True:
            with trio.CancelScope() as self._sleep:
                self._wake_us = None
                self._plan()
                await trio.sleep_forever()
            if self._core.wake_us is not None and self._core.wake_us <= self._clock.now_us():
                self.submit(self._tick)
