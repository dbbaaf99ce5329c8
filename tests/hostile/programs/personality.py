"""Turns the randomisation of addresses off, which makes exploits easier."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

from tools import errors_of, libc

ADDR_NO_RANDOMIZE, READ_IMPLIES_EXEC = 0x40000, 0x400000


def attack() -> dict[str, int]:
    return errors_of(
        fixed=lambda: libc.personality(ADDR_NO_RANDOMIZE), executable=lambda: libc.personality(READ_IMPLIES_EXEC)
    )
