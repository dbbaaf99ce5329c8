"""A new worker of a known image whose imports take seconds: its first result, by a fork from the zygote, against a new
process that imports the same.

python benchmarks/zygotes.py [--rounds 20]

`new_worker` is a call on a worker that is forked for it and used once, `warm` one on a worker that is there;
`first_ever` had to have the image, start the sandbox and import. `process` is a bare interpreter that does the same
work. PyTorch is the CPU's, which is on its own index: UV_INDEX=https://download.pytorch.org/whl/cpu.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from _common import environment, node, report, wall_ms
from _torch_app import TORCH, app, fresh, warm

WORK = "import torch; float(torch.ones(1000).sum())"


def taken_ms(run: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - start) / 1e6


def measure(rounds: int) -> None:
    with app.run(show_progress=False):
        first = taken_ms(lambda: fresh.remote(1000))
        taken_ms(lambda: warm.remote(1000))
        new, there = [], []
        for _ in range(rounds):
            new.append(taken_ms(lambda: fresh.remote(1000)))
            there.append(taken_ms(lambda: warm.remote(1000)))
    middle = {"new_worker_ms": statistics.median(new), "new_worker_p90_ms": sorted(new)[int(0.9 * len(new))]}
    print(json.dumps(middle | {"warm_ms": statistics.median(there), "first_ever_ms": first}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.rounds)
        return
    python = environment("torch", *TORCH)
    process = statistics.median(wall_ms([python, "-c", WORK]) for _ in range(5))
    with node("--name", "one", "--cpus", "2", "--memory-mib", "4096") as env:
        command: list[str | Path] = [sys.executable, Path(__file__), "--measure", "--rounds", str(options.rounds)]
        output = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE).stdout
    figures: dict[str, float] = json.loads(output.splitlines()[-1])
    report(
        "zygotes",
        {name: round(value, 1) for name, value in (figures | {"process_ms": process}).items()}
        | {"rounds": options.rounds, "new_worker_over_process": round(figures["new_worker_ms"] / process, 4)},
    )


if __name__ == "__main__":
    main()
