"""Asks for new namespaces, mounts, and the namespaces of others."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import ctypes


def attack() -> dict[str, int]:
    """The error number of each attempt; 0 where it succeeded."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = {"user": 0x10000000, "mount": 0x20000, "pid": 0x20000000, "net": 0x40000000, "time": 0x80}
    attempts = {f"unshare {name}": lambda flag=flag: libc.unshare(flag) for name, flag in flags.items()}
    attempts |= {
        "mount tmpfs": lambda: libc.mount(b"none", b"/tmp", b"tmpfs", 0, None),
        "bind": lambda: libc.mount(b"/proc", b"/tmp", None, 4096, None),
        "remount /": lambda: libc.mount(None, b"/", None, 32, None),
        "umount /proc": lambda: libc.umount2(b"/proc", 2),
        "pivot_root": lambda: libc.pivot_root(b"/tmp", b"/tmp"),
        "chroot": lambda: libc.chroot(b"/tmp"),
        "setns": lambda: libc.setns(os.open("/proc/1/ns/user", os.O_RDONLY) if readable() else 0, 0),
        "setuid": lambda: libc.setresuid(0, 0, 0),
        "sethostname": lambda: libc.sethostname(b"x", 1),
    }
    return {name: error_of(attempt) for name, attempt in attempts.items()}


def readable() -> bool:
    return os.access("/proc/1/ns/user", os.R_OK)


def error_of(attempt) -> int:
    ctypes.set_errno(0)
    return ctypes.get_errno() if attempt() < 0 else 0
