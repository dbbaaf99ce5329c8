"""Raises its own limits."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import ctypes
import resource

from tools import errors_of, libc


def attack() -> dict[str, int]:
    return errors_of(
        files=lambda: raise_to(resource.RLIMIT_NOFILE, 512),
        core=lambda: raise_to(resource.RLIMIT_CORE, 1 << 20),
    )


def raise_to(kind: int, value: int) -> int:
    return libc.setrlimit(kind, (ctypes.c_ulong * 2)(value, value))
