"""Virtual time: a heap of things to do, one source of randomness, and a record of what happened.

Nothing here reads a clock, starts a thread or iterates over a set, so one seed gives one history, byte for byte.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from potluck_netsim.words import clock, tell

# When every history begins, Unix microseconds: early in 2027.
START_US = 1_800_000_000_000_000
# A story is told from this many of a node's last lines: a lease's life is about twenty.
LINES_KEPT = 60
# Of each of very many nodes.
LINES_MIN = 16
# So many events without time moving on is a loop: fifty nodes greeting each other make some thousand.
STANDSTILL_EVENTS = 100_000

Do = Callable[[], None]
# Takes each line of the trace, without its end.
Trace = Callable[[str], None] | None


class Fact:
    """Something that happened and that checkers may look at; see `facts.py`."""


class Checker(Protocol):
    """`wants` may name the kinds of facts that it looks at; else it is shown all."""

    def see(self, fact: Fact, world: World) -> None:
        """Look at a fact; raise through `world.broken` when it breaks the promise."""
        ...


class PromiseBroken(Exception):  # noqa: N818 - reads as the sentence that it is
    """A checker found a promise broken. The text has the seed and the story."""

    def __init__(self, promise: str, text: str) -> None:
        super().__init__(text)
        self.promise = promise


@dataclass
class _Line:
    number: int
    at_us: int
    who: str
    text: str
    thing: object
    times: int = 1

    def __str__(self) -> str:
        what = f"{self.text} {tell(self.thing)}" if self.thing is not None else self.text
        again = f" ({self.times} times in a row)" if self.times > 1 else ""
        return f"{clock(self.at_us - START_US)} {self.who} {what}{again}"


class World:
    """`write` receives each line of the trace, without its end; `dice` is the only randomness."""

    def __init__(self, seed: int, write: Trace = None, lines_kept: int = LINES_KEPT) -> None:
        self.seed, self.now_us, self.events = seed, START_US, 0
        self.dice = random.Random(seed)
        self._watching: dict[type[Fact], list[Checker]] = {}
        self._checkers: tuple[Checker, ...] = ()
        # Of peers, for stories.
        self.names: dict[str, str] = {}
        self._write, self._lines_kept = write, lines_kept
        self._heap: list[tuple[int, int, Do]] = []
        self._planned = self._told = self._still = 0
        self._recent: dict[str, deque[_Line]] = {}

    @property
    def checkers(self) -> tuple[Checker, ...]:
        return self._checkers

    @checkers.setter
    def checkers(self, checkers: Iterable[Checker]) -> None:
        self._checkers, self._watching = tuple(checkers), {}

    def at(self, when_us: int, do: Do) -> None:
        """Do something at a time; of equal times the one planned first comes first."""
        self._planned += 1
        heapq.heappush(self._heap, (max(when_us, self.now_us), self._planned, do))

    def after(self, delay_us: int, do: Do) -> None:
        self.at(self.now_us + delay_us, do)

    def run(self, until_us: int) -> None:
        """Let time pass up to `until_us`."""
        while self._heap and self._heap[0][0] <= until_us:
            when_us, _, do = heapq.heappop(self._heap)
            self._still = 0 if when_us > self.now_us else self._still + 1
            self.now_us = when_us
            self.events += 1
            if self._still > STANDSTILL_EVENTS:
                self.broken("time moves on", f"{self._still} events at one moment", *self._recent)
            do()
        self.now_us = max(self.now_us, until_us)

    # Chances

    def chance(self, milli: int) -> bool:
        """True `milli` times in a thousand."""
        return self.dice.randrange(1000) < milli

    def around(self, mean_us: float) -> int:
        """An exponentially distributed time."""
        return 1 + int(self.dice.expovariate(1 / mean_us)) if mean_us > 0 else 0

    # What happened

    def tell(self, who: str, text: str, thing: object = None) -> None:
        """Add a line to the trace. `thing` is put into words only when somebody reads them."""
        self._told += 1
        line = _Line(self._told, self.now_us, who, text, thing)
        if self._write:
            self._write(str(line))
        recent = self._recent.setdefault(who, deque(maxlen=self._lines_kept))
        if recent and recent[-1].text == text and recent[-1].thing == thing:
            recent[-1].times += 1
        else:
            recent.append(line)

    def fact(self, fact: Fact) -> None:
        """Show a fact to every checker."""
        kind = type(fact)
        if kind not in self._watching:
            self._watching[kind] = [each for each in self.checkers if issubclass(kind, getattr(each, "wants", Fact))]
        for checker in self._watching[kind]:
            checker.see(fact, self)

    def broken(self, promise: str, how: str, *nodes: str) -> None:
        """Raise `PromiseBroken`, telling what the named nodes did last."""
        lines = sorted((line for node in nodes for line in self._recent.get(node, ())), key=lambda line: line.number)
        story = "\n".join(f"  {line}" for line in lines)
        for peer, name in self.names.items():
            story = story.replace(peer, name)
        raise PromiseBroken(
            promise,
            f"Broken promise: {promise}.\n  how: {how}\n  when: {clock(self.now_us - START_US)}\n"
            f"  replay: --seed {self.seed}\n  what {', '.join(nodes) or 'nobody'} did last:\n{story}",
        )
