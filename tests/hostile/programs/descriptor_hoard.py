"""Opens files, and sends descriptors to itself, where the kernel keeps them in flight and counts them for the user."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import contextlib
import socket

held = []


def attack() -> dict[str, int]:
    """How many descriptors it holds open, and how many in flight; at most 3000 and 4000."""
    ours, theirs = socket.socketpair()
    held.append(theirs)
    counts = {"in flight": 0, "open": 0}
    with contextlib.suppress(OSError):
        mine = [os.open("/dev/null", os.O_RDONLY) for _ in range(50)]
        while counts["in flight"] < 4000:
            socket.send_fds(ours, [b"x"], mine, socket.MSG_DONTWAIT)
            counts["in flight"] += 50
    held.append(ours)
    with contextlib.suppress(OSError):
        while counts["open"] < 3000:
            held.append(os.open("/dev/null", os.O_RDONLY))
            counts["open"] += 1
    for each in held[2:]:
        os.close(each)
    return counts
