"""Opens every device that it can find or think of, but those that everybody has."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

HARMLESS = "null zero full random urandom tty ptmx pts shm fd stdin stdout stderr core console mqueue"
THOUGHT_OF = "mem kmem port kmsg sda vda nvme0n1 loop0 loop-control fuse kvm vsock uinput nvidiactl dri/card0"


def attack() -> list[str]:
    names = (set(os.listdir("/dev")) | set(THOUGHT_OF.split())) - set(HARMLESS.split())
    return sorted(name for name in names if opens(f"/dev/{name}"))


def opens(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True
