"""Walks through the folders that people keep things in, for a secret of the owner's."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import contextlib
import glob

TOPS = ("/home", "/root", "/etc", "/var", "/opt", "/srv", "/mnt", "/media", "/run", "/tmp", "/dev/shm")
DEPTHS = ("*", "*/*", "*/*/*")


def attack(token: str) -> list[str]:
    paths = {path for top in TOPS for depth in DEPTHS for path in glob.iglob(f"{top}/{depth}", include_hidden=True)}
    return sorted(path for path in paths if holds(path, token.encode()))


def holds(path: str, token: bytes) -> bool:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            return token in file.read(1 << 16)
    return False
