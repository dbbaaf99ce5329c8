"""Talks to the hypervisor, and through it to the host, past every network namespace."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import socket

from tools import error_of


def attack() -> int:
    return error_of(lambda: socket.socket(40, socket.SOCK_STREAM).close())
