"""Sends a log message of a stream that does not exist."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import contextlib
import struct
import time

BODY = b"\x94\xa9WorkerLog\x01\x07\xc4\x01x"


def attack() -> None:
    for descriptor in range(3, 50):
        with contextlib.suppress(OSError):
            os.write(descriptor, struct.pack(">I", len(BODY)) + BODY)
    time.sleep(1000)
