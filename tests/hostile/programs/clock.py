"""Sets the machine's clock."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import ctypes

from tools import errors_of, libc

NO_CLOCK = 999


def attack() -> dict[str, int]:
    time = (ctypes.c_long * 2)(1, 0)
    change = (ctypes.c_long * 26)(0x0002, 0)
    return errors_of(
        clock_settime=lambda: libc.clock_settime(0, time),
        settimeofday=lambda: libc.settimeofday(time, None),
        adjtimex=lambda: libc.adjtimex(change),
        other=lambda: libc.clock_settime(NO_CLOCK, time),
    )
