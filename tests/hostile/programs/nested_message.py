"""Sends a message of lists in lists in lists, a million deep, to a reader that may recurse."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import contextlib
import struct
import time

DEPTH = 1_000_000
BODY = b"\x94\xaeInputSucceeded\x01" + b"\x91" * DEPTH + b"\xc0\x00"


def attack() -> None:
    for descriptor in range(3, 50):
        with contextlib.suppress(OSError):
            send(descriptor, struct.pack(">I", len(BODY)) + BODY)
    time.sleep(1000)


def send(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
