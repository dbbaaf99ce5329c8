"""Stops the kernel in the middle of a copy, as exploits like to."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

from tools import call, errors_of

USER_MODE_ONLY = 1


def attack() -> dict[str, int]:
    return errors_of(own=lambda: call("userfaultfd", USER_MODE_ONLY), whole=lambda: call("userfaultfd", 0))
