"""Reads which folders of the host lie behind what it sees."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")


def attack() -> str:
    with open("/proc/self/mountinfo") as file:
        return file.read()
