"""Where a program runs: here, or in a worker's sandbox."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Told by an environment variable, as `potluck_node.sandbox.interface.MARKER`.
IN_SANDBOX = "POTLUCK_SANDBOX"


def is_local() -> bool:
    """Whether this is the caller's own program, and not a function on the mesh."""
    return not os.environ.get(IN_SANDBOX)


def preempted() -> bool:
    """Whether the owner of the machine that runs this wants it back: what runs is ended within its grace, and runs
    elsewhere unless it returns before. Always False in a program of your own, and where requests are answered."""
    notice = sys.modules.get("potluck_runner.notice")
    return bool(notice and notice.told)


def current_function_call_id() -> str | None:
    """The number of the call that runs here, by which `FunctionCall.from_id` finds it if it was spawned; None in a
    program, in a batch, and where it is not known: in threads that a function of `@concurrent` starts by itself."""
    call = _input()[1]
    return f"fc-{call.removeprefix('fc-')}" if call else None


def current_input_id() -> str | None:
    """The number of the input that runs here, which stays the same when it is tried again; None as for
    `current_function_call_id`."""
    _, call, index = _input()
    return f"in-{call.removeprefix('fc-')}-{index}" if call else None


def _input() -> tuple[int, str, int]:
    """As the runner knows it."""
    runner = sys.modules.get("potluck_runner.current")
    found: tuple[int, str, int] = runner.get() if runner else (0, "", 0)
    return found


@contextmanager
def enable_output() -> Iterator[None]:
    """Changes nothing: what functions print is always shown, and progress where standard error is a terminal. Here so
    that programs for Modal run as they are."""
    yield
