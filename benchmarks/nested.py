"""Warm no-op calls, and a fan-out, from inside a function against the same from its program: on one node with two CPUs,
and on one with a single CPU, which the function that calls lends to the one that it calls.

python benchmarks/nested.py [--calls 500] [--fan-out 1000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from _common import median_us, node, report
from _nested_app import app, calls, fan_out, noop


def measure(count: int, size: int) -> None:
    with app.run(show_progress=False):
        program_us = median_us(lambda: noop.remote(1), count)
        calls.remote(20)
        inside_us = statistics.median(calls.remote(count))
        fan_out.remote(size)
        start = time.perf_counter()
        list(noop.map(range(size)))
        outside_s = time.perf_counter() - start
        inside_s = fan_out.remote(size)
    print(
        json.dumps(
            {
                "program_call_us": program_us,
                "nested_call_us": inside_us,
                "program_map_per_s": size / outside_s,
                "nested_map_per_s": size / inside_s,
            }
        )
    )


def one_round(cpus: int, options: argparse.Namespace) -> dict[str, float]:
    with node("--name", "one", "--cpus", str(cpus), "--memory-mib", "2048") as env:
        command: list[str | Path] = [sys.executable, Path(__file__), "--measure"]
        command += ["--calls", str(options.calls), "--fan-out", str(options.fan_out)]
        output = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE).stdout
    return dict(json.loads(output.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--fan-out", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.calls, options.fan_out)
        return
    rounds = [{cpus: one_round(cpus, options) for cpus in (2, 1)} for _ in range(options.rounds)]
    found: dict[str, Any] = {"rounds": len(rounds)}
    for cpus in (2, 1):
        middle = {name: statistics.median(each[cpus][name] for each in rounds) for name in rounds[0][cpus]}
        found[f"{cpus}_cpus"] = {name: round(value, 1) for name, value in middle.items()} | {
            "nested_call_over_program": round(middle["nested_call_us"] / middle["program_call_us"], 2),
            "nested_map_over_program": round(middle["nested_map_per_s"] / middle["program_map_per_s"], 2),
        }
    report("nested", found)


if __name__ == "__main__":
    main()
