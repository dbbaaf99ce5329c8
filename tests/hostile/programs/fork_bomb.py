"""Starts processes that start processes, until the kernel refuses; each stays."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import time


def attack() -> int:
    parent = os.getpid()
    refused = 0
    for _ in range(1000):
        try:
            os.fork()
        except OSError:
            refused += 1
            if os.getpid() != parent:
                time.sleep(1000)
            if refused > 10:
                return refused
    return 0
