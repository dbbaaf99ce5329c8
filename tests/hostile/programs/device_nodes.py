"""Makes devices of its own: a disk, the memory, the console."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import stat

from tools import error_of

DEVICES = {
    "disk": (stat.S_IFBLK, 8, 0),
    "vdisk": (stat.S_IFBLK, 254, 0),
    "mem": (stat.S_IFCHR, 1, 1),
    "kmsg": (stat.S_IFCHR, 1, 11),
}


def attack() -> dict[str, int]:
    return {name: error_of(lambda name=name: make(name)) for name in DEVICES}


def make(name: str) -> int:
    kind, major, minor = DEVICES[name]
    os.mknod(f"/tmp/{name}", kind | 0o666, os.makedev(major, minor))
    return os.open(f"/tmp/{name}", os.O_RDONLY)
