"""Operations on dicts and queues by programs on the owner's machine, against Redis in the same run.

python benchmarks/state.py [--operations 1000] [--rounds 3]

`redis_durable` writes each operation to disk before it answers, as we do (`appendfsync always`); `redis` keeps all in
memory and loses it when it is killed, which we never do. Both are Debian's, on a Unix socket. `postgres` is ours with
PostgreSQL. The floor is one write of 4 KiB and its fsync.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from _common import ROOT, environment, median_us, node, report

KEEPERS = ROOT / "benchmarks" / "_keepers.py"


def fsync_us() -> float:
    """On the disk where the nodes' folders are."""
    with tempfile.NamedTemporaryFile() as file:

        def write() -> None:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())

        return median_us(write, 200)


@contextmanager
def redis(*flags: str) -> Iterator[Callable[[int], dict[str, float]]]:
    """A Redis of its own."""
    python = environment("redis", "redis")
    with tempfile.TemporaryDirectory(prefix="potluck-redis-") as folder:
        socket = Path(folder) / "socket"
        command = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--dir", folder, "--save", "", *flags]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while not socket.exists():
            time.sleep(0.01)
        try:
            yield lambda count: asked(python, "redis", count, os.environ | {"REDIS_SOCKET": str(socket)})
        finally:
            server.terminate()
            server.wait()


@contextmanager
def potluck(config: str = "") -> Iterator[Callable[[int], dict[str, float]]]:
    """A node of its own."""
    with node("--no-offer", config=config) as env:
        yield lambda count: asked(sys.executable, "potluck", count, env)


@contextmanager
def postgres() -> Iterator[Callable[[int], dict[str, float]]]:
    """A node on a PostgreSQL of its own."""
    sys.path.insert(0, str(ROOT))
    from tests.postgres import Postgres

    server = Postgres()
    try:
        with potluck(f'state = "{server.url}"') as measure:
            yield measure
    finally:
        server.stop()


def asked(python: str | Path, name: str, count: int, env: dict[str, str]) -> dict[str, float]:
    output = subprocess.run([python, KEEPERS, name, str(count)], env=env, check=True, stdout=subprocess.PIPE).stdout
    return dict(json.loads(output.splitlines()[-1]))


def contenders() -> dict[str, Any]:
    found: dict[str, Any] = {"potluck": potluck()}
    if shutil.which("redis-server"):
        found["redis_durable"] = redis("--appendonly", "yes", "--appendfsync", "always")
        found["redis"] = redis()
    if list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        found["postgres"] = postgres()
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--operations", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rounds: dict[str, list[dict[str, float]]] = {}
    floor = []
    with ExitStack() as stack:
        measures = {name: stack.enter_context(contender) for name, contender in contenders().items()}
        for _ in range(options.rounds):
            floor.append(fsync_us())
            for name, measure in measures.items():
                rounds.setdefault(name, []).append(measure(options.operations))
    found = {
        name: {key: round(statistics.median(each[key] for each in figures), 1) for key in figures[0]}
        for name, figures in rounds.items()
    }
    ratios = {
        f"{key}_of_{name}": round(found["potluck"][key] / value, 2)
        for name in found.keys() & {"redis_durable", "redis"}
        for key, value in found[name].items()
    }
    report("state", {"fsync_us": round(statistics.median(floor), 1), **found, "ratios": ratios})


if __name__ == "__main__":
    main()
