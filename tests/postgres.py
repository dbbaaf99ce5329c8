"""A PostgreSQL of our own for tests, from Debian's packages: in a folder of its own, on a Unix socket alone."""

import itertools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

# Debian puts each version's programs here, and none of them on the path.
PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
# PostgreSQL refuses to run as root; nobody is always there.
NOBODY = 65534


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
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder}"
        self._run("pg_ctl", "-D", self.data, "-w", "-l", self.folder / "log", "-o", options, "start")

    def fresh(self):
        """The URL of an empty database."""
        import psycopg

        name = f"fresh{next(self._numbers)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url.replace("/postgres?", f"/{name}?")

    def kill(self):
        """As pulling the plug: SIGKILL to every process of it, in the order in which none can tell another."""
        first = int((self.data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        for pid in (first, *map(int, children)):
            os.kill(pid, 9)
        # Its shared memory is in use until the last of them is gone.
        while any(map(_lives, (first, *children))):
            os.sched_yield()

    def stop(self):
        self._run("pg_ctl", "-D", self.data, "-m", "immediate", "stop", check=False)
        shutil.rmtree(self.folder)

    def _run(self, program, *arguments, check=True):
        as_user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if os.getuid() == 0 else []
        command = [*as_user, str(PLACES[-1] / program), *map(str, arguments)]
        # No pipes: the server would hold them open.
        with (self.folder / "commands").open("ab") as sink:
            done = subprocess.run(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, check=False
            )
        assert not check or done.returncode == 0, (self.folder / "commands").read_text()


def _lives(pid):
    """Whether a process runs; one that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
