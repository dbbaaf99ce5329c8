"""Changes the image, which other sandboxes see too: its files, its interpreter, itself."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import sys

from tools import error_of

PATHS = ("/open/file", "/open/new", "/usr/new", "/bin/sh", sys.executable, "/proc/self/exe", "/proc/1/exe")


def attack() -> dict[str, int]:
    return {path: error_of(lambda path=path: os.open(path, os.O_RDWR | os.O_CREAT)) for path in PATHS}
