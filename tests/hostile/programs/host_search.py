"""Looks for anything of the host: files, devices, sockets, settings."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import contextlib

PLACES = """
/root/.ssh /root/.bashrc /home /etc/shadow /etc/ssh /var/lib /var/run/docker.sock /run/docker.sock /run/dbus
/run/user /boot /mnt /sys/class /sys/fs/cgroup /proc/kcore /proc/kmsg /proc/sysrq-trigger /dev/mem /dev/kmsg
/dev/sda /dev/vda /dev/nvidia0 /dev/fuse /dev/kvm /dev/net/tun
"""


def attack() -> dict[str, object]:
    return {
        "found": [place for place in PLACES.split() if contents(place)],
        "abstract sockets": len(open("/proc/net/unix").read().split("@")) - 1,
    }


def contents(place: str) -> bool:
    """Whether there is anything to be had."""
    with contextlib.suppress(OSError):
        if os.path.isdir(place):
            return bool(os.listdir(place))
        with open(place, "rb") as file:
            return bool(file.read(1))
    return False
