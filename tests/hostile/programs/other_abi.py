"""Calls the kernel by the numbers of another architecture, which a filter may have forgotten."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import ctypes

from tools import error_of, libc

X32_GETPID = 0x40000000 + 39


def attack() -> int:
    return error_of(lambda: libc.syscall(ctypes.c_long(X32_GETPID)))
