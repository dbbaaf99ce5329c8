"""Tries to reach somebody: the host, the internet, the cloud's metadata service, the local network."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import socket

PEERS = [("127.0.0.1", 22), ("169.254.169.254", 80), ("1.1.1.1", 53), ("10.0.0.1", 80), ("192.168.1.1", 80)]


def attack() -> dict[str, object]:
    return {
        "reached": [peer for peer in PEERS if reaches(peer)],
        "resolved": resolves("example.org"),
        "raw": opens(socket.AF_PACKET, socket.SOCK_RAW),
        "netlink": opens(socket.AF_NETLINK, socket.SOCK_RAW),
        "vsock": opens(socket.AF_VSOCK, socket.SOCK_STREAM),
    }


def reaches(peer: tuple[str, int]) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(peer) == 0


def resolves(name: str) -> bool:
    try:
        return bool(socket.getaddrinfo(name, 80))
    except OSError:
        return False


def opens(family: int, kind: int) -> bool:
    try:
        socket.socket(family, kind).close()
    except OSError:
        return False
    return True
