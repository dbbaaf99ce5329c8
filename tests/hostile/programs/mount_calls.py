"""Mounts, moves and removes mounts."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

from tools import errors_of, libc


def attack() -> dict[str, int]:
    return errors_of(
        nowhere=lambda: libc.mount(b"none", b"/no/folder", b"tmpfs", 0, None),
        tmpfs=lambda: libc.mount(b"none", b"/tmp", b"tmpfs", 0, None),
        bind=lambda: libc.mount(b"/proc", b"/tmp", None, 4096, None),
        remount=lambda: libc.mount(None, b"/", None, 32, None),
        umount=lambda: libc.umount2(b"/proc", 2),
        pivot_root=lambda: libc.pivot_root(b"/tmp", b"/tmp"),
        chroot=lambda: libc.chroot(b"/tmp"),
    )
