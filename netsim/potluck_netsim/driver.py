"""Drives one core of one node on virtual time: the counterpart of the node's `engine.py`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Generic, Protocol, TypeVar

from potluck_netsim.facts import Ticked
from potluck_netsim.world import World
from potluck_node.engine import Core

EventT = TypeVar("EventT")
ActionT = TypeVar("ActionT")


class Host(Protocol):
    """What a driver needs of its node."""

    name: str
    world: World

    @property
    def now_us(self) -> int:
        """By its own clock."""
        ...

    def later(self, delay_us: int, do: Callable[[], None]) -> None:
        """Do something after a while, unless the node dies; a frozen node does it when it thaws."""
        ...


class Driver(Generic[EventT, ActionT]):
    """Events are queued, never nested, as in the node."""

    def __init__(
        self, host: Host, label: str, core: Core[EventT, ActionT], do: Callable[[ActionT], None], tick: EventT
    ) -> None:
        self._hears, self._says = f"{label} <", f"{label} >"
        self._host, self._label, self._core, self._do, self._tick = host, label, core, do, tick
        self._queue: deque[EventT] = deque()
        self._running = False
        self._armed_us: int | None = None

    def submit(self, event: EventT) -> None:
        """Handle one event and whatever it causes."""
        self._queue.append(event)
        if self._running:
            return
        self._running = True
        world = self._host.world
        while self._queue:
            event = self._queue.popleft()
            world.tell(self._host.name, self._hears, event)
            for action in self._core.handle(event, self._host.now_us):
                world.tell(self._host.name, self._says, action)
                self._do(action)
        self._running = False
        self._plan()

    def _plan(self) -> None:
        wake_us = self._core.wake_us
        if wake_us is not None and (self._armed_us is None or wake_us < self._armed_us):
            self._armed_us = wake_us
            self._host.later(max(0, wake_us - self._host.now_us), partial(self._woken, wake_us))

    def _woken(self, armed_us: int) -> None:
        if armed_us != self._armed_us:
            return
        self._armed_us = None
        if self._core.wake_us is not None and self._core.wake_us <= self._host.now_us:
            self._host.world.fact(Ticked(self._host.name, self._label))
            self.submit(self._tick)
        else:
            self._plan()
