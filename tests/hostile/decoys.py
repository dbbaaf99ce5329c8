"""Things of the host that hostile programs go for, made by the test: what it finds changed, they have reached."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from potluck_node.sandbox.unprivileged import DROP

# A file of a sandbox's scratch.
NOTE = "note-of-a-neighbour"

IPC_CREAT, IPC_RMID = 0o1000, 0


class Decoys:
    """`home` is an owner's folder with a secret, a key and sockets; `writable` a folder of everybody's; `victim` a
    process that belongs to the user who the sandbox is."""

    def __init__(self) -> None:
        self.token = str(secrets.randbelow(10**12) + 10**12)
        self._top = Path(tempfile.mkdtemp(prefix="potluck-decoys-"))
        self._sockets: list[socket.socket] = []
        self.home, self.writable = self._top / "home", self._top / "writable"
        self._make_files()
        self.abstract = f"potluck-decoy-{self.token}"
        self._listen(socket.AF_UNIX, "\0" + self.abstract)
        self.port = self._listen(socket.AF_INET, ("127.0.0.1", 0)).getsockname()[1]
        self.shm_key = int(self.token) % (1 << 30) + 1
        self._shm = ctypes.CDLL(None).shmget(self.shm_key, 4096, IPC_CREAT | 0o666)
        drop = DROP if os.geteuid() == 0 else ()
        self.victim = subprocess.Popen([*drop, "/bin/sleep", "1000", f"0.{self.token}"])
        self._host = (os.uname().nodename, time.time() - time.monotonic())

    def _make_files(self) -> None:
        self._top.chmod(0o755)
        for folder, mode in ((self.home, 0o755), (self.writable, 0o1777)):
            folder.mkdir()
            folder.chmod(mode)
        for name in ("secret", "node.key"):
            (self.home / name).write_text(self.token)
        (self.writable / NOTE).touch()
        for name in ("docker.sock", "control.sock"):
            self._listen(socket.AF_UNIX, str(self.home / name))
            (self.home / name).chmod(0o666)

    def _listen(self, family: int, address: object) -> socket.socket:
        listener = socket.socket(family)
        self._sockets.append(listener)
        listener.bind(address)
        listener.listen()
        listener.setblocking(False)
        return listener

    def untouched(self) -> bool:
        """Whether nobody connected, the files are as they were, the victim lives, and so do name and time."""
        files = {path.name: path.read_text() for path in self.home.iterdir() if path.is_file()}
        host = (os.uname().nodename, time.time() - time.monotonic())
        return (
            files == {"secret": self.token, "node.key": self.token}
            and [path.name for path in self.writable.iterdir()] == [NOTE]
            and not any(accepts(listener) for listener in self._sockets)
            and self.victim.poll() is None
            and host[0] == self._host[0]
            and abs(host[1] - self._host[1]) < 1
        )

    def close(self) -> None:
        self.victim.kill()
        self.victim.wait()
        for each in self._sockets:
            each.close()
        ctypes.CDLL(None).shmctl(self._shm, IPC_RMID, None)
        shutil.rmtree(self._top)


def accepts(listener: socket.socket) -> bool:
    with contextlib.suppress(BlockingIOError):
        listener.accept()[0].close()
        return True
    return False
