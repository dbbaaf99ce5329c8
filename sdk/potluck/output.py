"""What a run shows on the terminal: the functions' prints, live, and a line that says what is waited for."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Protocol

from potluck.wire.control import CallLog, CallNotice

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status


class Output(Protocol):
    """A session's listener that can be closed."""

    def notice(self, message: CallNotice) -> None: ...
    def log(self, message: CallLog) -> None: ...
    def progress(self, text: str) -> None: ...
    def close(self) -> None: ...


def make_output(show_progress: bool | None) -> Output:
    """With a progress line when wanted, or by default when standard error is a terminal."""
    if show_progress or (show_progress is None and sys.stderr.isatty()):
        return LiveOutput()
    return PlainOutput()


class PlainOutput:
    """Prints of the functions, each line headed by the worker's name; nothing else."""

    def __init__(self) -> None:
        self._partial: dict[tuple[str, int], str] = {}
        self._lock = threading.Lock()

    def notice(self, message: CallNotice) -> None:
        pass

    def progress(self, text: str) -> None:
        pass

    def log(self, message: CallLog) -> None:
        """Whole lines at once; the rest of a line waits for its end."""
        key = (message.worker, message.stream)
        with self._lock:
            text = self._partial.pop(key, "") + message.data.decode(errors="replace")
            *lines, rest = text.split("\n")
            if rest:
                self._partial[key] = rest
            for line in lines:
                self.write(message.worker, message.stream, line)

    def write(self, worker: str, stream: int, line: str) -> None:
        target = sys.stderr if stream == 2 else sys.stdout
        target.write(f"{worker} │ {line}\n")
        target.flush()

    def close(self) -> None:
        for (worker, stream), rest in self._partial.items():
            self.write(worker, stream, rest)
        self._partial.clear()


class LiveOutput(PlainOutput):
    """In addition a spinner on standard error with what is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self._status: Status | None = None

    def _console(self) -> Console:
        from rich.console import Console

        return Console(stderr=True)

    def _show(self, text: str) -> None:
        if text and self._status is None:
            status = self._status = self._console().status(text)
            status.start()
        elif self._status and text:
            self._status.update(text)
        elif self._status:
            self._status.stop()
            self._status = None

    def notice(self, message: CallNotice) -> None:
        self._show(message.text)

    def progress(self, text: str) -> None:
        self._show(text)

    def write(self, worker: str, stream: int, line: str) -> None:
        from rich.markup import escape

        if self._status:
            # The console knows how to print above its spinner.
            self._status.console.print(f"[dim]{escape(worker)} │[/dim] {escape(line)}", highlight=False)
        else:
            super().write(worker, stream, line)

    def close(self) -> None:
        super().close()
        self._show("")
