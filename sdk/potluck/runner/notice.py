"""That this worker is to be ended soon: its owner wants the machine back. The node tells it by two signals.

SIGINT comes when the grace begins, as on Modal, and reaches whatever handler the program has; without one it only sets
what `potluck.preempted()` says. SIGTERM comes shortly before the end: without a handler of the program's own,
KeyboardInterrupt is raised in what runs, so that `except` and `finally` can save.
"""

from __future__ import annotations

import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

told = False
# Whether user code runs in the main thread, where Python handles signals.
running = False


def listen(last: Callable[[], None]) -> None:
    """In the main thread. `last` is called shortly before the end, if nothing runs that could be interrupted."""
    if signal.getsignal(signal.SIGINT) in (signal.SIG_DFL, signal.default_int_handler):
        signal.signal(signal.SIGINT, _told)
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:

        def interrupt(*_: object) -> None:
            _told()
            if running:
                raise KeyboardInterrupt("the owner of this machine wants it back")
            last()

        signal.signal(signal.SIGTERM, interrupt)


def _told(*_: object) -> None:
    global told
    told = True
