"""Connects to the sockets of the node, of Docker and of the desktop, by their paths."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import socket

from tools import error_of

KNOWN = ["/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/dbus/system_bus_socket"]


def attack(paths: list[str]) -> dict[str, int]:
    return {path: error_of(lambda path=path: connect(path)) for path in [*KNOWN, *paths]}


def connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
