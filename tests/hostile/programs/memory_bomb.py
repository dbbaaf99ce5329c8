"""Takes a third more memory than it may have, and touches it."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import time

MIB = 340


def attack() -> int:
    held = [bytearray(os.urandom(4096)) * 256 for _ in range(MIB)]
    time.sleep(2)  # whoever only looks now and then should have seen it
    return len(held)
