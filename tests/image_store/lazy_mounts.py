"""Mounts for tests: started as the node starts them, and gone afterwards whatever happens."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from potluck_images.lazy_support import why_not
from potluck_images.lazy_wire import FromMount, Mounted, MountFailed, ToMount, encode, from_mount

missing = why_not()
needs_fuse = pytest.mark.skipif(bool(missing), reason=f"images cannot be mounted here: {missing}")

PATIENCE_S = 20.0


def mounts(below: Path) -> list[str]:
    """Mount points below a folder."""
    return [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if f" {below}" in line]


class Mount:
    """A mount process; the test plays the node."""

    def __init__(self, store: Path, image: str, folder: Path) -> None:
        folder.mkdir()
        self.root = folder
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(PATIENCE_S)
        self._reader, self._came = from_mount(), list[FromMount | ToMount]()
        with theirs:
            command = [sys.executable, "-m", "potluck_images.lazy_mount", str(store), image, str(folder)]
            self.process = subprocess.Popen([*command, str(theirs.fileno())], pass_fds=[theirs.fileno()])

    def receive(self) -> FromMount | ToMount:
        while not self._came:
            data = self.socket.recv(1 << 16)
            assert data, "the mount process has ended"
            self._came += self._reader.feed(data)
        return self._came.pop(0)

    def hang_up(self) -> None:
        """As a node that ends; a thread that receives would keep a socket alive that is merely closed."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def send(self, message: ToMount) -> None:
        self.socket.sendall(encode(message))


@contextmanager
def mounted(store: Path, image: str, folder: Path) -> Iterator[Mount]:
    mount = Mount(store, image, folder)
    try:
        first = mount.receive()
        assert isinstance(first, Mounted | MountFailed)
        assert isinstance(first, Mounted), first
        yield mount
    finally:
        mount.hang_up()
        with suppress(subprocess.TimeoutExpired):
            mount.process.wait(PATIENCE_S)
        mount.process.kill()
        mount.process.wait()
        if mounts(folder):
            unmount = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
            subprocess.run([*unmount, str(folder)], check=False)
