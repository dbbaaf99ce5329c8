"""Makes a ring through which system calls pass no filter."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import ctypes

from tools import call, error_of


def attack() -> int:
    return error_of(lambda: call("io_uring_setup", 4, ctypes.create_string_buffer(120)))
