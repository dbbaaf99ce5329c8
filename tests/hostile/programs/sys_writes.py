"""Writes below /sys: control groups, devices, power, the kernel's modules."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

from tools import error_of

PLACES = """
/sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/release_agent /sys/fs/cgroup/memory/release_agent /sys/kernel/uevent_helper
/sys/power/state /sys/module/new /sys/kernel/mm/transparent_hugepage/enabled /sys/block/new /sys/new
"""


def attack() -> dict[str, int]:
    return {place: error_of(lambda place=place: write(place)) for place in PLACES.split()}


def write(place: str) -> None:
    with open(place, "w") as file:
        file.write("1")
