"""`potluck run --detach`: work that goes on when its terminal is closed."""

from __future__ import annotations

import os
import signal
from typing import Any

import click

from potluck.functions import Function


def outlive_terminal() -> None:
    """Go on when the terminal is closed; what would be written to it is dropped from then on."""
    signal.signal(signal.SIGHUP, lambda number, frame: _leave_terminal())


def _leave_terminal() -> None:
    # Writing to a terminal that is gone fails (EIO), and would end the program after all.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nowhere, standard)
    os.close(nowhere)


def detached(function: Function[..., Any], arguments: dict[str, Any]) -> Any:
    """Spawn a call, say how it is found again, and wait for its result."""
    call = function.spawn(**arguments)
    click.secho(
        f"{call.object_id} goes on without this program.\n"
        f"  prints: potluck app logs -f {function.app.name}\n"
        f'  result: potluck.FunctionCall.from_id("{call.object_id}").get()',
        dim=True,
        err=True,
    )
    return call.get()
