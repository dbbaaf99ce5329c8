"""Prints without end, from Python, from C and from a subprocess."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import subprocess
import sys
import threading


def attack() -> None:
    subprocess.Popen(["/bin/sh", "-c", "while :; do echo from a subprocess; done"])
    threading.Thread(target=from_c, daemon=True).start()
    while True:
        print("x" * 1000)
        print("y" * 1000, file=sys.stderr)


def from_c() -> None:
    while True:
        os.write(2, b"z" * 1000)
