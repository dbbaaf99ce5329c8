"""Renames the machine."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

from tools import errors_of, libc


def attack() -> dict[str, int]:
    return errors_of(
        hostname=lambda: libc.sethostname(b"potluck-was-here", 16),
        domain=lambda: libc.setdomainname(b"potluck-was-here", 16),
        proc=lambda: os.open("/proc/sys/kernel/hostname", os.O_WRONLY),
    )
