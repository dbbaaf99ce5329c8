"""Looks for processes of the host and reads what they were started with."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import contextlib


def attack(token: str) -> dict[str, object]:
    found = []
    pids = [name for name in os.listdir("/proc") if name.isdigit()]
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            found += [pid] if token.encode() in file.read() else []
    return {"found": found, "highest": max(map(int, pids))}
