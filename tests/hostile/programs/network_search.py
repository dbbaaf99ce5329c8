"""Tries to reach somebody: the host, the internet, the cloud's metadata service, the local network."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import socket

PEERS = [
    ("127.0.0.1", 22),
    ("169.254.169.254", 80),
    ("1.1.1.1", 53),
    ("10.0.0.1", 80),
    ("192.168.1.1", 80),
    ("172.17.0.1", 80),
]


def attack(peers: list[tuple[str, int]] = PEERS) -> dict[str, object]:
    return {
        "reached": [peer for peer in peers if reaches(*peer)],
        "resolved": peers is PEERS and resolves("example.org"),
    }


def reaches(host: str, port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex((host, port)) == 0


def resolves(name: str) -> bool:
    try:
        return bool(socket.getaddrinfo(name, 80))
    except OSError:
        return False
