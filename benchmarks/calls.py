"""Warm no-op calls and maps: one node, through a second node, a bare Unix socket, and Ray, in the same run.

python benchmarks/calls.py [--calls 300] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from _common import ROOT, environment, median_us, node, report, status

MAPPED = 2000

RAY = """
import json, sys, time, statistics, os
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
import ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)

@ray.remote
def noop(x):
    return x

calls, mapped = int(sys.argv[1]), int(sys.argv[2])
ray.get([noop.remote(i) for i in range(50)])
taken = []
for i in range(calls):
    start = time.perf_counter_ns(); ray.get(noop.remote(i)); taken.append(time.perf_counter_ns() - start)
start = time.perf_counter_ns()
assert len(ray.get([noop.remote(i) for i in range(mapped)])) == mapped
rate = mapped / ((time.perf_counter_ns() - start) / 1e9)
print(json.dumps({"call_us": statistics.median(taken) / 1000, "calls_per_s": rate}))
ray.shutdown()
"""


def potluck_figures(env: dict[str, str], calls: int) -> dict[str, float]:
    """Measured in a process of its own, as a user's program would be."""
    output = subprocess.run(
        [sys.executable, str(Path(__file__)), "--measure", "--calls", str(calls)],
        env=env,
        check=True,
        capture_output=True,
    )
    return dict(json.loads(output.stdout))


def measure(calls: int) -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import _noop

    with _noop.app.run(show_progress=False):
        assert _noop.noop.remote(1) == 1
        call_us = median_us(lambda: _noop.noop.remote(1), calls)
        # Once unmeasured: both workers are up and have shown how quick they are.
        assert len(list(_noop.noop.map(range(MAPPED)))) == MAPPED
        start = time.perf_counter_ns()
        assert list(_noop.noop.map(range(MAPPED))) == list(range(MAPPED))
        rate = MAPPED / ((time.perf_counter_ns() - start) / 1e9)
    print(json.dumps({"call_us": call_us, "calls_per_s": rate}))


def unix_echo_us(calls: int) -> float:
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


def ray_figures(calls: int) -> dict[str, float]:
    python = environment("ray", "ray")
    env = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    output = subprocess.run(
        [python, "-c", RAY, str(calls), str(MAPPED)], check=True, capture_output=True, env=env
    ).stdout
    return dict(json.loads(output.splitlines()[-1]))


def two_nodes(calls: int) -> dict[str, float]:
    with node("--name", "caller", "--no-offer") as caller:
        address = status(caller)["addresses"][0]
        with node("--name", "provider", "--cpus", "2", "--bootstrap", address):
            while not any(peer["state"] == "open" for peer in status(caller)["peers"]):
                time.sleep(0.2)
            return potluck_figures(caller, calls)


def one_node(calls: int) -> dict[str, float]:
    with node("--name", "one", "--cpus", "2") as env:
        return potluck_figures(env, calls)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--without-ray", action="store_true")
    options = parser.parse_args()
    if options.measure:
        measure(options.calls)
        return
    rounds: list[dict[str, Any]] = []
    for _ in range(options.rounds):
        rounds.append(
            {"unix": unix_echo_us(options.calls), "one": one_node(options.calls), "two": two_nodes(options.calls)}
        )
        if not options.without_ray:
            rounds[-1]["ray"] = ray_figures(options.calls)

    def middle(name: str, figure: str) -> float:
        return statistics.median(each[name][figure] for each in rounds)

    floor = statistics.median(each["unix"] for each in rounds)
    figures: dict[str, Any] = {"rounds": len(rounds), "unix_socket_echo_us": round(floor, 1)}
    for name in ["one", "two", *([] if options.without_ray else ["ray"])]:
        figures[name] = {
            "warm_call_p50_us": round(middle(name, "call_us"), 1),
            "over_unix_echo": round(middle(name, "call_us") / floor, 1),
            f"map_{MAPPED}_calls_per_s": round(middle(name, "calls_per_s")),
        }
        if not options.without_ray:
            figures[name]["call_over_ray"] = round(middle(name, "call_us") / middle("ray", "call_us"), 2)
            figures[name]["rate_over_ray"] = round(middle(name, "calls_per_s") / middle("ray", "calls_per_s"), 2)
    report("calls", figures)


if __name__ == "__main__":
    main()
