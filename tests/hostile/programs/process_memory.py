"""Reads and writes another process's memory, and takes its descriptors."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import ctypes
import signal
import time

from tools import call, errors_of, libc


def attack() -> dict[str, int]:
    child = os.fork()
    if child == 0:
        time.sleep(1000)
    buffer = ctypes.create_string_buffer(8)
    here = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
    try:
        return errors_of(
            read=lambda: libc.process_vm_readv(child, here, 1, here, 1, 0),
            write=lambda: libc.process_vm_writev(child, here, 1, here, 1, 0),
            pidfd_getfd=lambda: call("pidfd_getfd", os.pidfd_open(child), 0, 0),
        )
    finally:
        os.kill(child, signal.SIGKILL)
