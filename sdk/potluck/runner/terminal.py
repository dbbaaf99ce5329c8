"""A command that talks through a socket, beside the workers or in place of the zygote: for `potluck container exec` and
`potluck shell FILE.py::f`. Its terminal is made in here, so that the user's own is out of reach.
"""

from __future__ import annotations

import os
import pty
import sys

from . import forward

# Gives the new terminal its size, then becomes the command.
_SIZED = """
import fcntl, os, struct, sys, termios
fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", int(sys.argv[1]), int(sys.argv[2]), 0, 0))
os.execvp(sys.argv[3], sys.argv[3:])
"""


def run(channel: int, command: list[str], rows: int, columns: int) -> int:
    """Run the command to its end and return its exit status. With `rows` it gets a terminal, where there are any."""
    for standard in range(3):
        os.dup2(channel, standard)
    if rows and os.path.exists("/dev/ptmx"):
        status = pty.spawn([sys.executable, "-c", _SIZED, str(rows), str(columns), *command])
        return os.waitstatus_to_exitcode(status) & 0xFF
    return os.spawnvp(os.P_WAIT, command[0], command) & 0xFF


def main() -> None:
    """In place of the zygote. Arguments: rows and columns, then the command; the socket is standard input."""
    forward.start()
    sys.exit(run(0, sys.argv[3:], int(sys.argv[1]), int(sys.argv[2])))
