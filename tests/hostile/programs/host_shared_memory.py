"""Opens shared memory of the host by its key."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

from tools import error_of, libc


def attack(key: int) -> int:
    return error_of(lambda: libc.shmget(key, 0, 0))
