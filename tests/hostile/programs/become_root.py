"""Takes other users' rights, groups and capabilities."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import ctypes

from tools import errors_of, libc


def attack() -> dict[str, int]:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    all_rights = (ctypes.c_uint32 * 6)(*([0xFFFFFFFF] * 3), 0, 0, 0)
    with open("/proc/self/status") as file:
        effective = next(line.split()[1] for line in file if line.startswith("CapEff"))
    return {"capabilities": int(effective, 16)} | errors_of(
        user=lambda: libc.setresuid(0, 0, 0),
        group=lambda: libc.setresgid(0, 0, 0),
        groups=lambda: os.setgroups([0]),
        capset=lambda: libc.capset(header, all_rights),
        ambient=lambda: libc.prctl(47, 2, 21, 0, 0),
    )
