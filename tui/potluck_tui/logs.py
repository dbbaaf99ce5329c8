"""What functions print, as lines: pieces come from several workers at once and end anywhere. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from potluck.wire.apps import LogLine
from potluck_tui.words import plain

# More than anybody reads by scrolling; `potluck app logs` has what the node keeps.
LINES_MAX = 200
# What a line without an end may grow to.
STRANGER_LINE_MAX = 4096


class Tail:
    """The newest lines of one function of an app; `after` is the number of the last piece that was seen."""

    def __init__(self, app: str, function: str) -> None:
        self.app, self.function, self.after = app, function, 0
        self._lines: deque[tuple[str, str]] = deque(maxlen=LINES_MAX)
        # By worker and stream, what has no end yet.
        self._open: dict[tuple[str, int], str] = {}

    def add(self, pieces: Iterable[LogLine]) -> None:
        """Pieces of the app, the oldest first; those of its other functions are passed over, and those seen before."""
        for piece in pieces:
            if piece.number <= self.after:
                continue
            self.after = piece.number
            if piece.function != self.function:
                continue
            key = (piece.worker, piece.stream)
            *whole, rest = (self._open.pop(key, "") + piece.data.decode(errors="replace")).split("\n")
            self._lines += [(piece.worker, line) for line in whole]
            if rest:
                self._open[key] = rest[-STRANGER_LINE_MAX:]
                # Of workers that are gone; each had one line.
                while len(self._open) > LINES_MAX:
                    self._open.pop(next(iter(self._open)))

    def rows(self) -> tuple[tuple[str, str], ...]:
        """Worker and line, the oldest first; lines that are not ended yet are last."""
        unended = [(worker, line) for (worker, _), line in self._open.items()]
        return tuple(
            (plain(worker), plain(line.rstrip("\r"))) for worker, line in [*self._lines, *unended][-LINES_MAX:]
        )
