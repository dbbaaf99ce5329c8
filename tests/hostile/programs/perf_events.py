"""Counts events of the processor and of the kernel."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import ctypes

from tools import call, errors_of


def attack() -> dict[str, int]:
    attributes = (ctypes.c_uint32 * 32)(1, 128)
    return errors_of(
        own=lambda: call("perf_event_open", attributes, 0, -1, -1, 0),
        all=lambda: call("perf_event_open", attributes, -1, 0, -1, 0),
        form=lambda: call("perf_event_open", attributes, 0, -1, -1, 1 << 20),
    )
