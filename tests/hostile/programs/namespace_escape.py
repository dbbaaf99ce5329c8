"""Asks for new namespaces, in which it would have rights, and for the namespaces of others."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import ctypes
import signal

from tools import call, errors_of, libc

KINDS = {"user": 0x10000000, "mount": 0x20000, "pid": 0x20000000, "net": 0x40000000, "ipc": 0x8000000, "time": 0x80}


def attack() -> dict[str, int]:
    arguments = (ctypes.c_uint64 * 11)(KINDS["user"], 0, 0, 0, signal.SIGCHLD)
    return errors_of(
        **{name: lambda flag=flag: libc.unshare(flag) for name, flag in KINDS.items()},
        clone3=lambda: left(call("clone3", arguments, 88)),
        setns=lambda: libc.setns(0, 0),
    )


def left(pid: int) -> int:
    """A child ends at once."""
    if pid == 0:
        os._exit(0)
    return pid
