"""Tries to read and write the memory and descriptors of its zygote."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import ctypes
import sys


def attack() -> dict[str, str]:
    libc = ctypes.CDLL(None, use_errno=True)
    ways = {
        "memory": lambda: os.open("/proc/1/mem", os.O_RDWR),
        "environment": lambda: os.open("/proc/1/environ", os.O_RDONLY),
        "descriptors": lambda: os.listdir("/proc/1/fd"),
        "root": lambda: os.listdir("/proc/1/root"),
        "ptrace": lambda: checked(libc, libc.ptrace(16, 1, 0, 0)),
        "process_vm_readv": lambda: checked(libc, libc.process_vm_readv(1, 0, 0, 0, 0, 0)),
        "pidfd_getfd": lambda: checked(libc, libc.syscall(438, os.pidfd_open(1), 3, 0)),
    }
    return {name: outcome(way) for name, way in ways.items()}


def checked(libc: ctypes.CDLL, result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result


def outcome(way) -> str:
    try:
        way()
    except OSError as error:
        return f"refused: {error.errno}"
    print("succeeded", file=sys.stderr)
    return "succeeded"
