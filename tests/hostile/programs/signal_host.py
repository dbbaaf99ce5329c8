"""Ends a process of the host that belongs to the same user, by its number there."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import signal

from tools import errors_of


def attack(pid: int) -> dict[str, int]:
    return errors_of(
        kill=lambda: os.kill(pid, signal.SIGTERM),
        group=lambda: os.killpg(pid, signal.SIGTERM),
        pidfd=lambda: signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGTERM),
        priority=lambda: os.setpriority(os.PRIO_PROCESS, pid, 19),
        scheduler=lambda: os.sched_setaffinity(pid, {0}),
    )
