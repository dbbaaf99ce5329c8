"""Starts processes that start processes, until the kernel refuses; each stays."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import time


def attack() -> int:
    """How many processes there are when it refuses."""
    parent = os.getpid()
    for _ in range(1000):
        try:
            os.fork()
        except OSError:
            if os.getpid() != parent:
                time.sleep(1000)
            break
    return sum(name.isdigit() for name in os.listdir("/proc"))
