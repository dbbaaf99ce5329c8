"""One argument and result of 2 GiB, on one node and through a second one: how long, and how much memory at the peak.

python benchmarks/payload_peak.py [--mib 2047]

"anonymous_mib" is what a process has for itself alone; sealed memory, which all who map it share, is "sealed_mib" and
counted once for the machine, on which both nodes are: so two nodes and no needless copy hold argument and result twice.
Needs 16 GiB of free memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from _common import ROOT, environment, node, report, two_nodes

# How often memory is looked at; a copy of 2 GiB takes over ten times as long.
SAMPLE_S = 0.02


def measure(mib: int) -> None:
    """In a process of its own, as a user's program would be."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import _echo
    import numpy

    array = numpy.random.default_rng(1).integers(0, 255, mib << 20, dtype=numpy.uint8)
    with _echo.app.run(show_progress=False):
        echo = _echo.echo.with_options(memory=3 * mib)
        echo.remote(1)
        print("begin", flush=True)
        start = time.perf_counter()
        back: Any = echo.remote(array)
        took = time.perf_counter() - start
        print("end", flush=True)
        assert (back == array).all()
    print(json.dumps(took))


class Peak(threading.Thread):
    """Watches the client, the nodes below this process, and the machine's sealed memory."""

    def __init__(self, client: int) -> None:
        super().__init__(daemon=True)
        self.client, self.anonymous, self.stop = client, dict[str, int](), threading.Event()
        self.base = self.sealed = _kib(Path("/proc/meminfo"), "Shmem:")

    def run(self) -> None:
        while not self.stop.wait(SAMPLE_S):
            self.sealed = max(self.sealed, _kib(Path("/proc/meminfo"), "Shmem:"))
            for name, pid in self._processes():
                used = _kib(Path(f"/proc/{pid}/status"), "RssAnon:")
                self.anonymous[name] = max(self.anonymous.get(name, 0), used)

    def _processes(self) -> list[tuple[str, int]]:
        found = [("client", self.client)]
        for path in Path("/proc/self/task").glob("*/children"):
            for pid in path.read_text().split():
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if b"potluck_node.main" in words:
                    found.append((f"node {words[words.index(b'--name') + 1].decode()}", int(pid)))
        return found


def _kib(path: Path, name: str) -> int:
    try:
        return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(name))
    except (OSError, StopIteration):
        return 0


def potluck_figures(env: dict[str, str], mib: int) -> dict[str, object]:
    python = environment("payloads", "numpy", "-e", f"{ROOT}[node]")
    command = [python, __file__, "--measure", "--mib", str(mib)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout
        assert client.stdout.readline() == "begin\n"
        peak = Peak(client.pid)
        peak.start()
        assert client.stdout.readline() == "end\n"
        peak.stop.set()
        peak.join()
        seconds = float(client.stdout.readline())
    return {
        "seconds": round(seconds, 2),
        "mb_per_s_each_way": round(2 * (mib << 20) / seconds / 1e6),
        "anonymous_mib": {name: used >> 10 for name, used in sorted(peak.anonymous.items())},
        "sealed_mib": (peak.sealed - peak.base) >> 10,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=2047)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.mib)
        return
    figures: dict[str, Any] = {"mib": options.mib}
    with node("--name", "one", "--cpus", "2") as env:
        figures["one"] = potluck_figures(env, options.mib)
    with two_nodes() as env:
        figures["two"] = potluck_figures(env, options.mib)
    report("payload_peak", figures)


if __name__ == "__main__":
    main()
