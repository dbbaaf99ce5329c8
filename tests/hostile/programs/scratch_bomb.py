"""Fills every folder that can be written."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import contextlib


def attack() -> dict[str, int]:
    """How many MiB went into each folder; at most 80."""
    return {folder: fill(f"{folder}/large") for folder in ("/tmp", "/dev/shm", "/run", "/dev", "/", "/proc")}


def fill(path: str) -> int:
    written = 0
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        while written < 80:
            file.write(bytes(1 << 20))
            written += 1
    with contextlib.suppress(OSError):
        os.unlink(path)
    return written
