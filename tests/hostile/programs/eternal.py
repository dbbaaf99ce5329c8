"""Ignores every signal and every exception, and uses the processor."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import signal
import sys


def attack() -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    print("deaf", file=sys.stderr)
    while True:
        try:
            while True:
                pass
        except BaseException:
            continue
