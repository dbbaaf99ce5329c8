"""Takes memory of System V, which belongs to no process and outlives them."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import ctypes
import time

from tools import libc

MIB = 340


def attack() -> int:
    for _ in range(MIB // 20):
        segment = libc.shmget(0, 20 << 20, 0o600)
        if segment < 0:
            raise OSError(ctypes.get_errno(), "shmget")
        place = libc.shmat(segment, None, 0)
        ctypes.memset(place, 1, 20 << 20)
        libc.shmdt(ctypes.c_void_p(place))  # it stays, and shows in no process
    time.sleep(2)  # whoever only looks now and then should have seen it
    return MIB
