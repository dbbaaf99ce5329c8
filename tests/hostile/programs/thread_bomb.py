"""Starts threads, which cost as much as processes, until the kernel refuses."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import threading


def attack() -> int:
    """How many threads were started."""
    stop = threading.Event()
    started = 0
    try:
        while started < 400:
            threading.Thread(target=stop.wait, daemon=True).start()
            started += 1
    except RuntimeError:
        pass
    finally:
        stop.set()
    return started
