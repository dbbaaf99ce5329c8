"""Debugs a process of its own, through which the kernel has been entered before."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import signal
import time

from tools import errors_of, libc


def attack() -> dict[str, int]:
    child = os.fork()
    if child == 0:
        time.sleep(1000)
    try:
        return errors_of(seize=lambda: libc.ptrace(0x4206, child, 0, 0), attach=lambda: libc.ptrace(16, 1, 0, 0))
    finally:
        os.kill(child, signal.SIGKILL)
