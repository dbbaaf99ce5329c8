"""A PostgreSQL of our own for tests, from Debian's packages: in a folder of its own, on a Unix socket alone."""

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

# Debian puts each version's programs here, and none of them on the path.
PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
# PostgreSQL refuses to run as root; nobody is always there.
NOBODY = 65534
AS_USER = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups") if os.getuid() == 0 else ()


def missing():
    """Why there is none, or ""."""
    if not PLACES:
        return "PostgreSQL is not installed (apt-get install postgresql)"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed"
    return ""


class Postgres:
    """Starts when it is made; `url` is what the setting `state` takes."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="potluck-postgres-"))
        self.data = self.folder / "data"
        self.folder.chmod(0o755)
        if os.getuid() == 0:
            os.chown(self.folder, NOBODY, NOBODY)
        self._run("initdb", "-D", self.data, "-U", "potluck", "-A", "trust", "-N", "--no-sync")
        self.start()
        self._numbers = itertools.count(1)
        self.url = f"postgresql://potluck@/postgres?host={self.folder}"

    def start(self):
        options = ("-c", "listen_addresses=", "-c", f"unix_socket_directories={self.folder}")
        with (self.folder / "log").open("ab") as log:
            # A child of ours, so that it is reaped: it does not start while one of its number is left.
            self._process = subprocess.Popen(
                [*AS_USER, str(PLACES[-1] / "postgres"), "-D", str(self.data), *options],
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        while self._run("pg_isready", "-h", self.folder, check=False):
            assert self._process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.02)

    def fresh(self):
        """The URL of an empty database."""
        import psycopg

        name = f"fresh{next(self._numbers)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url.replace("/postgres?", f"/{name}?")

    def kill(self):
        """As pulling the plug: SIGKILL to every process of it, in an order in which none can tell another."""
        first = self._process.pid
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        for pid in (first, *map(int, children)):
            os.kill(pid, signal.SIGKILL)
        self._process.wait()
        # Its shared memory is in use until the last of them is gone.
        while any(map(_lives, children)):
            time.sleep(0.01)

    def stop(self):
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()
        shutil.rmtree(self.folder)

    def _run(self, program, *arguments, check=True):
        command = [*AS_USER, str(PLACES[-1] / program), *map(str, arguments)]
        with (self.folder / "commands").open("ab") as sink:
            done = subprocess.run(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, check=False
            )
        assert not check or done.returncode == 0, (self.folder / "commands").read_text()
        return done.returncode


def _lives(pid):
    """Whether a process runs; one that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
