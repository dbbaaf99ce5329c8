"""Looks for services of the host that trust everybody on its loopback."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import socket


def attack(port: int) -> list[str]:
    return [way for way, (family, host) in WAYS.items() if reaches(family, host, port)]


WAYS = {
    "IPv4": (socket.AF_INET, "127.0.0.1"),
    "any": (socket.AF_INET, "0.0.0.0"),
    "other": (socket.AF_INET, "127.1.2.3"),
    "IPv6": (socket.AF_INET6, "::1"),
    "mapped": (socket.AF_INET6, "::ffff:127.0.0.1"),
}


def reaches(family: int, host: str, port: int) -> bool:
    try:
        with socket.socket(family) as client:
            client.settimeout(1)
            return client.connect_ex((host, port)) == 0
    except OSError:
        return False
