"""Signals every process it can see, its zygote first."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import contextlib
import signal
import time


def attack() -> list[int]:
    for number in signal.valid_signals():
        with contextlib.suppress(OSError):
            os.kill(1, number)
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    time.sleep(0.3)  # the end of process 1 would reach us now
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
