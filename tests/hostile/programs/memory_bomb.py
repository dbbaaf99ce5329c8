"""Takes memory, touches it, and never stops."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")


def attack() -> None:
    held = []
    while True:
        held.append(bytearray(os.urandom(4096)) * 4096)
