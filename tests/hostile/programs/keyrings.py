"""Reads and writes the kernel's keyrings, which no namespace separates."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

from tools import call, errors_of

SESSION = -3


def attack() -> dict[str, int]:
    return errors_of(
        ring=lambda: call("keyctl", 0, SESSION, 0, 0, 0),
        join=lambda: call("keyctl", 1, 0, 0, 0, 0),
        add=lambda: call("add_key", b"user", b"potluck-test", b"x", 1, SESSION),
        request=lambda: call("request_key", b"user", b"potluck-test", 0, 0),
    )
