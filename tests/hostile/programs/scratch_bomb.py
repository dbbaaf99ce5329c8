"""Fills every folder that can be written, with one large file and then with many empty ones."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import contextlib
import errno


def attack() -> dict[str, int]:
    return {folder: fill(folder) for folder in ("/tmp", "/dev/shm", "/run", "/dev", "/", "/proc")}


def fill(folder: str) -> int:
    """The error number that stopped us; 0 when nothing did."""
    try:
        with open(f"{folder}/large", "wb") as file:
            for _ in range(64 << 10):
                file.write(bytes(1 << 20))
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(f"{folder}/large")
        return error.errno or errno.EIO
    return 0
