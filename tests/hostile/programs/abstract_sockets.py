"""Connects to a socket that has a name but no path, as desktops use them."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import socket

from tools import error_of


def attack(name: str) -> int:
    with socket.socket(socket.AF_UNIX) as client:
        return error_of(lambda: client.connect("\0" + name))
