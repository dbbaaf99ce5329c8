"""Takes memory of System V, which belongs to no process and outlives them."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import ctypes

from tools import libc

MIB = 340


def attack() -> int:
    for _ in range(MIB // 20):
        segment = libc.shmget(0, 20 << 20, 0o600)
        if segment < 0:
            raise OSError(ctypes.get_errno(), "shmget")
        ctypes.memset(libc.shmat(segment, None, 0), 1, 20 << 20)
    return MIB
