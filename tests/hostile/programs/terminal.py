"""Types into a terminal, as if its owner did."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import fcntl
import pty

from tools import errors_of

TIOCSTI, TIOCLINUX, UPPER = 0x5412, 0x541C, 1 << 32


def attack() -> dict[str, int]:
    _, slave = pty.openpty()
    return errors_of(
        type=lambda: fcntl.ioctl(slave, TIOCSTI, b"x"),
        paste=lambda: fcntl.ioctl(slave, TIOCLINUX, b"\3"),
        controlling=lambda: os.open("/dev/tty", os.O_RDWR),
    )
