"""What is started in place of a zygote for `potluck shell FILE.py::f`: a command that talks through the socket at
standard input. Its terminal is made in here, so that the user's own is out of reach.

Arguments: rows and columns, 0 for no terminal, then the command.
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


def main() -> None:
    """Run the command to its end, and end as it did."""
    rows, columns, *command = sys.argv[1:]
    forward.start()
    os.dup2(0, 1)
    os.dup2(0, 2)
    if int(rows):
        status = pty.spawn([sys.executable, "-c", _SIZED, rows, columns, *command])
        sys.exit(os.waitstatus_to_exitcode(status) & 0xFF)
    sys.exit(os.spawnvp(os.P_WAIT, command[0], command) & 0xFF)
