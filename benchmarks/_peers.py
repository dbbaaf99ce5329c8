"""The others, for `calls.py` and `callers.py`, each run by the Python of its own environment.

python _peers.py ray|loky|modal CALLS FAN_OUT…
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

WORKERS = 2


def noop(x: int) -> int:
    return x


def figures(call: Callable[[int], int], fan_out: Callable[[int], list[int]], calls: int, sizes: list[int]) -> None:
    """Warm calls one by one, then fan-outs, of which the first size is done once unmeasured."""
    for number in range(100):
        call(number)
    taken = []
    for number in range(calls):
        start = time.perf_counter_ns()
        assert call(number) == number
        taken.append((time.perf_counter_ns() - start) / 1000)
    found: dict[str, Any] = {"call_us": statistics.median(taken), "p99_us": statistics.quantiles(taken, n=100)[98]}
    assert len(fan_out(sizes[0])) == sizes[0]
    for size in sizes:
        start = time.perf_counter_ns()
        assert fan_out(size) == list(range(size))
        found[f"fan_out_{size}_per_s"] = size / ((time.perf_counter_ns() - start) / 1e9)
    print(json.dumps(found))


def ray(calls: int, sizes: list[int]) -> None:
    os.environ |= {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    import ray

    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, configure_logging=False)
    remote = ray.remote(noop)
    ray.get([remote.remote(number) for number in range(50)])
    figures(
        lambda number: ray.get(remote.remote(number)),
        lambda size: ray.get([remote.remote(number) for number in range(size)]),
        calls,
        sizes,
    )
    ray.shutdown()


def loky(calls: int, sizes: list[int]) -> None:
    """Processes of one machine, without isolation. `chunksize=1`, as the others send every input on its own."""
    from loky import get_reusable_executor

    executor = get_reusable_executor(max_workers=WORKERS)
    figures(
        lambda number: executor.submit(noop, number).result(),
        lambda size: list(executor.map(noop, range(size), chunksize=1)),
        calls,
        sizes,
    )
    executor.shutdown()


def modal(calls: int, sizes: list[int]) -> None:
    """`.local` alone, a call in this very process: Modal's `.remote` needs its cloud."""
    import modal

    app = modal.App("bench")
    function = app.function(serialized=True)(noop)
    figures(function.local, lambda size: [function.local(number) for number in range(size)], calls, sizes)


if __name__ == "__main__":
    name, *numbers = sys.argv[1:]
    {"ray": ray, "loky": loky, "modal": modal}[name](int(numbers[0]), [int(number) for number in numbers[1:]])
