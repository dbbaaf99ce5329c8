"""This program's terminal, lent to a command that runs elsewhere."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

READ_BYTES = 64 << 10
# The last output of a command that has ended is on its way through the kernel only.
LAST_OUTPUT_TIMEOUT_S = 5.0


def size() -> tuple[int, int]:
    """Rows and columns; (0, 0) when standard input is no terminal."""
    if not sys.stdin.isatty():
        return 0, 0
    columns, rows = shutil.get_terminal_size()
    return rows, columns


@contextmanager
def raw() -> Iterator[None]:
    """Every key goes to the command, Ctrl-C too."""
    import termios
    import tty

    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSAFLUSH, before)


class Channel:
    """A Unix socket at `path`: standard input goes to whoever connects first, what comes from there is shown."""

    def __init__(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(1)
        self._output = threading.Thread(target=self._show, daemon=True)
        self._output.start()

    def close(self) -> None:
        """Show the rest, and end."""
        self._output.join(LAST_OUTPUT_TIMEOUT_S)
        self._listener.close()

    def _show(self) -> None:
        with suppress(OSError):
            connection, _ = self._listener.accept()
            with connection:
                threading.Thread(target=_send_keys, args=(connection,), daemon=True).start()
                while data := connection.recv(READ_BYTES):
                    os.write(1, data)


def _send_keys(connection: socket.socket) -> None:
    with suppress(OSError):
        while data := os.read(0, READ_BYTES):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
