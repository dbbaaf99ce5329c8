"""Tries to read and write the memory and descriptors of its zygote."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

from tools import call, errors_of, libc


def attack() -> dict[str, int]:
    return errors_of(
        memory=lambda: os.open("/proc/1/mem", os.O_RDWR),
        environment=lambda: os.open("/proc/1/environ", os.O_RDONLY),
        descriptors=lambda: os.listdir("/proc/1/fd"),
        root=lambda: os.listdir("/proc/1/root"),
        ptrace=lambda: libc.ptrace(0x4206, 1, 0, 0),
        process_vm_readv=lambda: libc.process_vm_readv(1, 0, 0, 0, 0, 0),
        pidfd_getfd=lambda: call("pidfd_getfd", os.pidfd_open(1), 3, 0),
    )
