"""Writes the kernel's settings and triggers below /proc."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

from tools import error_of

PLACES = """
/proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/kernel/hostname /proc/sys/kernel/modprobe
/proc/sys/vm/overcommit_memory /proc/sys/vm/drop_caches /proc/sys/net/ipv4/ip_forward /proc/sys/user/max_user_namespaces
/proc/sys/fs/binfmt_misc/register /proc/irq/default_smp_affinity /proc/1/oom_score_adj /proc/1/uid_map /proc/kcore
/proc/self/setgroups
"""


def attack() -> dict[str, int]:
    return {place: error_of(lambda place=place: write(place)) for place in PLACES.split()}


def write(place: str) -> None:
    with open(place, "w") as file:
        file.write("0")
