"""Opens files and sockets, and sends descriptors to itself, where the kernel keeps them in flight."""

import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")

import socket


def attack() -> int:
    ours, theirs = socket.socketpair()
    errors = 0
    for _ in range(100_000):
        try:
            mine = [os.open("/dev/null", os.O_RDONLY) for _ in range(50)]
            socket.send_fds(ours, [b"x"], mine, socket.MSG_DONTWAIT)
            for each in mine:
                os.close(each)
        except OSError as error:
            errors = error.errno or -1
            break
    theirs.close()
    return errors
