"""HTTP through the gateway to a warm ASGI function, against servers that have the same application in their process.

    python benchmarks/gateway.py [--seconds 5] [--connections 1 16 64] [--rounds 3] [--only uvicorn hypercorn potluck]

Needs `wrk` (a Debian package); without it nothing is measured. `uvicorn` is uvicorn with h11 on asyncio, as it
comes without extras; `hypercorn` is Hypercorn on trio, the event loop of a node; `potluck` is one node that answers
by a worker of its own, in a sandbox. All have one process for their connections, and 100 bytes of answer. Each round
runs every contender once, one after the other; figures are medians over the rounds, `p50_ms` is wrk's.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from _common import ROOT, environment, node, report

PACKAGES = {"uvicorn": ("uvicorn",), "hypercorn": ("hypercorn==0.18.0", "trio")}
UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}
WARM_UP_S = 1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def peer(name: str) -> Iterator[str]:
    """Another server; yields its URL."""
    port = free_port()
    command = {
        "uvicorn": ["-m", "uvicorn", "_site:site", "--port", str(port), "--log-level", "warning", "--http", "h11"],
        "hypercorn": ["-m", "hypercorn", "_site:site", "--bind", f"127.0.0.1:{port}", "-k", "trio"],
    }[name]
    process = subprocess.Popen(
        [environment(name, *PACKAGES[name]), *command], cwd=ROOT / "benchmarks", stderr=subprocess.DEVNULL
    )
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def ours() -> Iterator[str]:
    """A node with the application deployed and warm; yields its URL."""
    with node("--name", "one", "--cpus", "2", "--gateway", f"127.0.0.1:{free_port()}") as env:
        command = [sys.executable, "-m", "potluck.cli.main", "deploy", "--json", "_site_app.py"]
        done = subprocess.run(command, cwd=ROOT / "benchmarks", env=env, check=True, capture_output=True)
        yield json.loads(done.stdout)["functions"][0]["url"]


def contender(name: str, connections: list[int], seconds: int) -> dict[str, float]:
    found = {}
    with ours() if name == "potluck" else peer(name) as url:
        wrk(url, 4, WARM_UP_S)
        for count in connections:
            rate, p50_ms = wrk(url, count, seconds)
            found |= {f"requests_s_{count}": rate, f"p50_ms_{count}": p50_ms}
    return found


def wrk(url: str, connections: int, seconds: int) -> tuple[float, float]:
    """(requests a second, median latency in ms). Raises `RuntimeError` when one was not answered with success."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "60s", url]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(text)
    rate, p50 = re.search(r"Requests/sec:\s+([\d.]+)", text), re.search(r"50%\s+([\d.]+)(us|ms|s)", text)
    assert rate
    assert p50
    return float(rate[1]), float(p50[1]) * UNITS_MS[p50[2]]


def summary(rounds: list[dict[str, dict[str, float]]], names: list[str]) -> dict[str, Any]:
    middle = {
        name: {figure: statistics.median(each[name][figure] for each in rounds) for figure in rounds[0][name]}
        for name in names
    }
    found: dict[str, Any] = {}
    for name, figures in middle.items():
        found[name] = {figure: round(value, 3) for figure, value in figures.items()}
        for figure, value in figures.items() if "uvicorn" in middle and name != "uvicorn" else ():
            base = middle["uvicorn"][figure]
            if figure.startswith("requests"):
                found[name][f"{figure}_over_uvicorn"] = round(value / base, 3)
            else:
                found[name][f"{figure}_added"] = round(value - base, 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=[*PACKAGES, "potluck"], default=[*PACKAGES, "potluck"])
    options = parser.parse_args()
    if not shutil.which("wrk"):
        report("gateway", {"skipped": "wrk is not installed; on Debian: sudo apt-get install wrk"})
        return
    rounds = [
        {name: contender(name, options.connections, options.seconds) for name in options.only}
        for _ in range(options.rounds)
    ]
    report("gateway", {"rounds": options.rounds, "seconds": options.seconds} | summary(rounds, options.only))


if __name__ == "__main__":
    main()
