"""Mounts through the newer calls, which work on descriptors."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

from tools import call, errors_of

OPEN_TREE_CLONE = 1
AT_FDCWD = -100


def attack() -> dict[str, int]:
    return errors_of(
        open_tree=lambda: call("open_tree", AT_FDCWD, b"/tmp", 0),
        clone_tree=lambda: call("open_tree", AT_FDCWD, b"/", OPEN_TREE_CLONE),
        fsopen=lambda: call("fsopen", b"tmpfs", 0),
        move_mount=lambda: call("move_mount", AT_FDCWD, b"/proc", AT_FDCWD, b"/tmp", 0),
    )
