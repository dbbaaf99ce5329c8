"""Loads programs into the kernel."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import ctypes

from tools import call, errors_of

MAP_CREATE, SIZE_OVER_THE_LIMIT = 0, 1 << 20


def attack() -> dict[str, int]:
    attributes = (ctypes.c_uint32 * 18)(2, 4, 4, 1)
    return errors_of(
        map=lambda: call("bpf", MAP_CREATE, attributes, 72),
        form=lambda: call("bpf", MAP_CREATE, attributes, SIZE_OVER_THE_LIMIT),
    )
