"""Warm no-op calls and fan-outs on two workers: one node, through a second node, and others, in the same run.

python benchmarks/calls.py [--calls 1000] [--fan-out 2000] [--rounds 3] [--only one two ray loky modal]

`one` is a node that runs its own calls; `two` is a caller's node and a provider's, which is not trusted (the default:
results come as data alone); `two_trusted` the same with `--trust mesh`. `ray` has one machine, `loky` bare processes,
and `modal` is `.local`, a call in the same process. Each round runs every contender once, one after the other.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from _common import ROOT, environment, median_us, node, report, two_nodes

PEERS = {"ray": ("ray", "ray"), "loky": ("loky", "loky"), "modal": ("modal", "modal")}
OURS = ("one", "two", "two_trusted")


def run_json(command: list[str | Path], env: dict[str, str] | None = None) -> dict[str, float]:
    """What a process of its own, as a user's program would be, prints last."""
    output = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE).stdout
    return dict(json.loads(output.splitlines()[-1]))


def measure(calls: int, sizes: list[int]) -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import _noop
    import _peers

    with _noop.app.run(show_progress=False):
        _peers.figures(_noop.noop.remote, lambda size: list(_noop.noop.map(range(size))), calls, sizes)


def unix_echo_us(calls: int) -> float:
    """The floor: 100 bytes there and back between two threads."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)

    def echo() -> None:
        while data := theirs.recv(4096):
            theirs.sendall(data)

    threading.Thread(target=echo, daemon=True).start()

    def turn() -> None:
        ours.sendall(b"x" * 100)
        ours.recv(4096)

    figure = median_us(turn, calls)
    ours.close()
    return figure


def contender(name: str, calls: int, sizes: list[int]) -> dict[str, float]:
    numbers = [str(calls), *map(str, sizes)]
    if name in PEERS:
        return run_json([environment(*PEERS[name]), ROOT / "benchmarks" / "_peers.py", name, *numbers])
    command: list[str | Path] = [sys.executable, Path(__file__), "--measure", "--calls", numbers[0]]
    command += ["--fan-out", *numbers[1:]]
    if name == "one":
        with node("--name", "one", "--cpus", "2") as env:
            return run_json(command, env)
    with two_nodes(*(["--trust", "mesh"] if name == "two_trusted" else [])) as env:
        return run_json(command, env)


def summary(rounds: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    middle = {
        name: {figure: statistics.median(each[name][figure] for each in rounds) for figure in rounds[0][name]}
        for name in names
    }
    found: dict[str, Any] = {}
    for name, figures in middle.items():
        found[name] = {figure: round(value, 1) for figure, value in figures.items()}
        if "ray" in middle:
            found[name] |= {
                f"{figure}_over_ray": round(value / middle["ray"][figure], 3) for figure, value in figures.items()
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--fan-out", type=int, nargs="+", default=[2000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=[*OURS, *PEERS], default=["one", "two", *PEERS])
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.calls, options.fan_out)
        return
    rounds: list[dict[str, Any]] = []
    floors = []
    for _ in range(options.rounds):
        floors.append(unix_echo_us(options.calls))
        rounds.append({name: contender(name, options.calls, options.fan_out) for name in options.only})
    figures = {
        "rounds": len(rounds),
        "calls": options.calls,
        "unix_socket_echo_us": round(statistics.median(floors), 1),
    }
    report("calls", figures | summary(rounds, options.only))


if __name__ == "__main__":
    main()
