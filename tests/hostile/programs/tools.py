"""What several of these programs need; it is sent along with each."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import ctypes
import platform

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.shmat.restype = ctypes.c_void_p

# System calls for which the C library has no function: their numbers on x86-64 and elsewhere.
_NUMBERS = {
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "clone3": (435, 435),
    "pidfd_getfd": (438, 438),
}


def call(name: str, *arguments) -> int:
    """Make a system call; integers become longs."""
    number = _NUMBERS[name][platform.machine() != "x86_64"]
    whole = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return libc.syscall(ctypes.c_long(number), *whole)


def error_of(attempt) -> int:
    """The error number with which it fails; 0 where it succeeds."""
    ctypes.set_errno(0)
    try:
        result = attempt()
    except OSError as error:
        return error.errno or -1
    return ctypes.get_errno() if isinstance(result, int) and result < 0 else 0


def errors_of(**attempts) -> dict[str, int]:
    return {name: error_of(attempt) for name, attempt in attempts.items()}
