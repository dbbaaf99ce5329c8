"""Announces a message of a hundred bytes, sends ten of them, and waits."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import contextlib
import struct
import time


def attack() -> None:
    for descriptor in range(3, 50):
        with contextlib.suppress(OSError):
            os.write(descriptor, struct.pack(">I", 100) + bytes(10))
    time.sleep(1000)
