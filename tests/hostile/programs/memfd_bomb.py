"""Writes into files that lie in no folder, so that no size of a folder bounds them."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import time

MIB = 340


def attack() -> int:
    files = [os.memfd_create(str(number)) for number in range(4)]
    for number in range(MIB):
        os.write(files[number % 4], bytes(1 << 20))
    time.sleep(2)  # whoever only looks now and then should have seen it
    return MIB
