"""Opens sockets that see or forge other people's packets, or talk to the kernel."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import socket

from tools import error_of

KINDS = {
    "packet": (17, socket.SOCK_RAW, 768),
    "raw": (2, socket.SOCK_RAW, 1),
    "netlink": (16, socket.SOCK_RAW, 0),
    "audit": (16, socket.SOCK_RAW, 9),
    "crypto": (38, socket.SOCK_SEQPACKET, 0),
    "bluetooth": (31, socket.SOCK_RAW, 1),
    "xdp": (44, socket.SOCK_RAW, 0),
}


def attack() -> dict[str, int]:
    return {name: error_of(lambda kind=kind: socket.socket(*kind).close()) for name, kind in KINDS.items()}
