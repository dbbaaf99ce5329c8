"""Makes files larger than it may, also ones that take no room yet."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import signal

from tools import errors_of


def attack(mib: int) -> dict[str, int]:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with open("/tmp/large", "wb") as file:
        return errors_of(
            sparse=lambda: file.truncate(mib << 20),
            in_memory=lambda: os.ftruncate(os.memfd_create("large"), mib << 20),
            at_the_end=lambda: os.pwrite(file.fileno(), b"x", mib << 20),
        )
