"""Speaks the worker's protocol itself: a result for an input that nobody sent, then nonsense."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import contextlib
import struct

FORGED = b"\x94\xaeInputSucceeded\xcd\x03\xe7\xc4\x01x\x00"


def attack() -> None:
    for descriptor in range(3, 50):
        with contextlib.suppress(OSError):
            os.write(descriptor, struct.pack(">I", len(FORGED)) + FORGED)
            os.write(descriptor, b"\xff\xff\xff\xff and four gigabytes to come")
    while True:
        pass
