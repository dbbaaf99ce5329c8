"""What functions printed lately, kept in memory for `potluck app logs`: the newest of each app, of so many apps."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

import trio

from potluck.wire.apps import LogLine
from potluck.wire.lease import InputLog
from potluck.wire.worker import LOG_BYTES_MAX

# Of one app: some ten thousand lines, which is more than anybody scrolls back.
APP_BYTES_MAX = 1 << 20
# Apps whose prints are kept; the one that was silent for longest is forgotten. Together at most 64 MiB.
APPS_MAX = 64
# What one answer carries at most, so that a long log does not stand in the way of calls on the same socket.
ANSWER_BYTES_MAX = 256 << 10
# What a piece costs beside its data.
_PIECE_BYTES = 200
# Workers' names have some ten letters; peers may say anything.
_NAME_MAX = 64


class _Ring:
    """The newest pieces of one app."""

    def __init__(self) -> None:
        self.lines: deque[LogLine] = deque()
        self.dropped = 0
        self._bytes = 0

    def add(self, line: LogLine) -> None:
        self.lines.append(line)
        self._bytes += len(line.data) + _PIECE_BYTES
        while self._bytes > APP_BYTES_MAX:
            oldest = self.lines.popleft()
            self._bytes -= len(oldest.data) + _PIECE_BYTES
            self.dropped = oldest.number


class Logs:
    """All apps' prints, in one numbering."""

    def __init__(self) -> None:
        self._rings: OrderedDict[str, _Ring] = OrderedDict()
        self._number = 0
        self._changed = trio.Event()

    def add(self, app: str, function: str, message: InputLog, now_us: int) -> None:
        self._number += 1
        worker, data = message.worker[:_NAME_MAX], message.data[:LOG_BYTES_MAX]
        line = LogLine(self._number, now_us, function, worker, message.stream, data)
        self._rings.setdefault(app, _Ring()).add(line)
        self._rings.move_to_end(app)
        if len(self._rings) > APPS_MAX:
            self._rings.popitem(last=False)
        self._changed.set()

    def names(self) -> list[str]:
        """Apps of which something is kept."""
        return list(self._rings)

    async def after(self, app: str, number: int, worker: str, wait_us: int) -> tuple[tuple[LogLine, ...], bool]:
        """Pieces above `number` as `AskAppLogs` asks for them, the oldest first, and whether others were dropped."""
        with trio.move_on_after(wait_us / 1e6):
            while not (found := self._found(app, number, worker)):
                self._changed = trio.Event() if self._changed.is_set() else self._changed
                await self._changed.wait()
        return tuple(found), any(ring.dropped > number for ring in self._of(app))

    def _of(self, app: str) -> list[_Ring]:
        return [ring for name, ring in self._rings.items() if app in ("", name)]

    def _found(self, app: str, number: int, worker: str) -> list[LogLine]:
        lines = (line for ring in self._of(app) for line in ring.lines)
        wanted = (line for line in lines if line.number > number and worker in ("", line.worker))
        return list(_as_much_as_fits(sorted(wanted, key=lambda line: line.number)))


def _as_much_as_fits(lines: list[LogLine]) -> Iterator[LogLine]:
    size = 0
    for line in lines:
        size += len(line.data) + _PIECE_BYTES
        if size > ANSWER_BYTES_MAX:
            return
        yield line
