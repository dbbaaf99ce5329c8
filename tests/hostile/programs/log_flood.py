"""Prints without end, from Python, from C and from a subprocess, and notes in a file how far it came."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import subprocess
import sys
import threading


def attack() -> None:
    subprocess.Popen(["/bin/sh", "-c", "while :; do echo from a subprocess; done"])
    threading.Thread(target=from_c, daemon=True).start()
    printed = 0
    while True:
        print("x" * 10_000)
        print("y" * 10_000, file=sys.stderr)
        printed += 20_000
        with open("/tmp/progress", "w") as file:
            file.write(str(printed))


def from_c() -> None:
    while True:
        os.write(2, b"z" * 1000)
