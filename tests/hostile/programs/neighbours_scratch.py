"""Looks for files of other sandboxes in every folder that sandboxes write to."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import contextlib
import glob

FOLDERS = ("/tmp", "/dev/shm", "/var/tmp", "/run", "/proc/[0-9]*/root/tmp", "/proc/[0-9]*/cwd")


def attack(name: str) -> list[str]:
    found = []
    for folder in FOLDERS:
        with contextlib.suppress(OSError):
            found += glob.glob(f"{folder}/**/{name}", recursive=not folder.startswith("/proc"))
    return found
