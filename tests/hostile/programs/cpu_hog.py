"""Uses all processors at once, for a second."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import time


def attack() -> float:
    """How many processors it got."""
    began = time.monotonic()
    children = [pid for pid in (os.fork() for _ in range(4)) if pid]
    if len(children) < 4:
        while time.monotonic() < began + 1:
            pass
        os._exit(0)
    used = sum(usage.ru_utime + usage.ru_stime for _, _, usage in (os.wait4(pid, 0) for pid in children))
    return used / (time.monotonic() - began)
