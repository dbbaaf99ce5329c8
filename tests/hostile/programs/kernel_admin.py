"""Loads modules, reads the kernel's log, restarts the machine, changes swap and quotas."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

from tools import errors_of, libc


def attack() -> dict[str, int]:
    return errors_of(
        quota=lambda: libc.quotactl(-1, None, 0, None),
        log=lambda: libc.klogctl(10, None, 0),
        module=lambda: libc.init_module(None, 0, b""),
        remove_module=lambda: libc.delete_module(b"x", 0),
        restart=lambda: libc.reboot(0),
        swap=lambda: libc.swapoff(b"/no/swap"),
        accounting=lambda: libc.acct(b"/tmp/account"),
        ports=lambda: libc.iopl(3),
    )
