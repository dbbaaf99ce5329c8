"""Arrays there and back: on one node, through a second node, and through Ray, in the same run.

Through a second node thrice: by a lane, its results read as data; "trusted", as pickles; "stream", without the lane.

python benchmarks/payloads.py [--sizes 10 200] [--times 20] [--rounds 3]   (sizes in MB)
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from _common import ROOT, environment, median_us, node, report, status

RAY = """
import json, os, statistics, sys, time
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
import numpy, ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False,
         object_store_memory=4 << 30)

@ray.remote
def echo(x):
    return x

figures = {}
for size in map(int, sys.argv[2:]):
    array = numpy.random.default_rng(1).integers(0, 255, size * 1_000_000, dtype=numpy.uint8)
    taken = []
    for turn in range(int(sys.argv[1]) + 3):
        start = time.perf_counter_ns()
        back = ray.get(echo.remote(array))
        taken.append(time.perf_counter_ns() - start)
        assert back[-1] == array[-1]
    figures[size] = statistics.median(taken[3:]) / 1000
print(json.dumps(figures))
ray.shutdown()
"""


def measure(times: int, sizes: list[int]) -> None:
    """In a process of its own, as a user's program would be."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import _echo
    import numpy

    figures = {}
    with _echo.app.run(show_progress=False):
        for size in sizes:
            array = numpy.random.default_rng(1).integers(0, 255, size * 1_000_000, dtype=numpy.uint8)
            back: Any = _echo.echo.remote(array)
            assert (back == array).all()
            figures[size] = median_us(lambda array=array: _echo.echo.remote(array), times, warmup=3)  # type: ignore[misc]
    print(json.dumps(figures))


def potluck_figures(env: dict[str, str], times: int, sizes: list[str]) -> dict[str, float]:
    python = environment("payloads", "numpy", "-e", f"{ROOT}[node]")
    command = [python, str(Path(__file__)), "--measure", "--times", str(times), "--sizes", *sizes]
    return dict(json.loads(subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE).stdout))


def one_node(times: int, sizes: list[str]) -> dict[str, float]:
    with node("--name", "one", "--cpus", "2") as env:
        return potluck_figures(env, times, sizes)


def two_nodes(times: int, sizes: list[str], *flags: str) -> dict[str, float]:
    with node("--name", "caller", "--no-offer", *flags) as caller:
        address = status(caller)["addresses"][0]
        with node("--name", "provider", "--cpus", "2", "--bootstrap", address):
            while not any(peer["state"] == "open" for peer in status(caller)["peers"]):
                time.sleep(0.2)
            return potluck_figures(caller, times, sizes)


def ray(times: int, sizes: list[str]) -> dict[str, float]:
    env = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    command = [environment("ray-numpy", "ray", "numpy"), "-c", RAY, str(times), *sizes]
    return dict(
        json.loads(subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["10", "200"])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=["one", "two", "trusted", "stream", "ray"])
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.times, [int(size) for size in options.sizes])
        return
    run = {
        "one": one_node,
        "two": two_nodes,
        "trusted": lambda times, sizes: two_nodes(times, sizes, "--trust", "mesh"),
        "stream": lambda times, sizes: two_nodes(times, sizes, "--no-lane"),
        "ray": ray,
    }
    rounds = [{name: run[name](options.times, options.sizes) for name in options.only} for _ in range(options.rounds)]
    figures: dict[str, Any] = {"rounds": len(rounds), "times": options.times}
    for size in options.sizes:
        middle = {name: statistics.median(each[name][size] for each in rounds) for name in options.only}
        figures[f"{size}_mb_there_and_back"] = {
            name: {
                "ms": round(us / 1000, 2),
                "mb_per_s_each_way": round(2 * int(size) * 1e6 / us),
                **({"speed_over_ray": round(middle["ray"] / us, 2)} if "ray" in middle else {}),
            }
            for name, us in middle.items()
        }
    report("payloads", figures)


if __name__ == "__main__":
    main()
