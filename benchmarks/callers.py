"""A thousand callers at once on one node with two workers, and the memory of an idle node; Ray in the same run.

python benchmarks/callers.py [--callers 1000] [--calls 5] [--rounds 3]

Each caller makes its calls one after the other. `tasks` are coroutines of one program, `threads` those of one program,
and `clients` connections of their own, as of programs. Ray has threads. Memory is the proportional set size (PSS) of
all processes, in MiB: of a node that offers two cores, and of `ray start --head` without its dashboard.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _common import ROOT, environment, node, report

OURS = ("tasks", "threads", "clients")
# Until processes have started what they start.
SETTLE_S = 15


class Taken:
    """Durations of calls, from any thread."""

    def __init__(self) -> None:
        self.us: list[float] = []
        self._start = time.perf_counter_ns()

    def call(self, call: Callable[[int], int], number: int) -> None:
        start = time.perf_counter_ns()
        assert call(number) == number
        self.us.append((time.perf_counter_ns() - start) / 1000)

    async def acall(self, call: Callable[[int], Any], number: int) -> None:
        start = time.perf_counter_ns()
        assert await call(number) == number
        self.us.append((time.perf_counter_ns() - start) / 1000)

    def figures(self) -> dict[str, float]:
        passed = (time.perf_counter_ns() - self._start) / 1e9
        return {
            "per_s": len(self.us) / passed,
            "median_us": statistics.median(self.us),
            "p99_us": statistics.quantiles(self.us, n=100)[98],
        }


def in_threads(call: Callable[[int], int], callers: int, calls: int) -> dict[str, float]:
    """As many threads as callers."""
    taken = Taken()

    def caller(number: int) -> None:
        for _ in range(calls):
            taken.call(call, number)

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken.figures()


async def in_tasks(call: Callable[[int], Any], callers: int, calls: int) -> dict[str, float]:
    taken = Taken()

    async def caller(number: int) -> None:
        for _ in range(calls):
            await taken.acall(call, number)

    async with asyncio.TaskGroup() as group:
        for number in range(callers):
            group.create_task(caller(number))
    return taken.figures()


async def in_clients(callers: int, calls: int) -> dict[str, float]:
    """A connection for each caller, all in one process, which costs it more than them."""
    import _noop

    from potluck import outcomes, start
    from potluck.aio import AsyncClient
    from potluck.output import PlainOutput

    running, _ = _noop.noop._begin((0,), {})
    spec = await running.spec_async(_noop.noop)
    clients = [await AsyncClient.connect(start.path(), PlainOutput()) for _ in range(callers)]
    taken = Taken()

    async def caller(number: int) -> None:
        async def call(value: int) -> int:
            client = clients[number]
            opened = client.open_call(spec)
            await client.add_input(opened, _noop.noop._payload((value,), {}))
            await client.end_inputs(opened)
            result = int(outcomes.value(await client.take(opened)))
            client.close_call(opened, "the caller left")
            return result

        for _ in range(calls):
            await taken.acall(call, number)

    async with asyncio.TaskGroup() as group:
        for number in range(callers):
            group.create_task(caller(number))
    found = taken.figures()
    for client in clients:
        await client.aclose()
    return found


def measure(way: str, callers: int, calls: int) -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    if way == "ray":
        print(json.dumps(ray_threads(callers, calls)))
        return
    import _noop

    with _noop.app.run(show_progress=False):
        assert list(_noop.noop.map(range(100))) == list(range(100))
        if way == "threads":
            found = in_threads(_noop.noop.remote, callers, calls)
        elif way == "tasks":
            found = asyncio.run(in_tasks(_noop.noop.remote.aio, callers, calls))
        else:
            found = asyncio.run(in_clients(callers, calls))
    print(json.dumps(found))


def ray_threads(callers: int, calls: int) -> dict[str, float]:
    os.environ |= {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    import ray
    from _peers import WORKERS, noop

    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, configure_logging=False)
    remote = ray.remote(noop)
    ray.get([remote.remote(number) for number in range(100)])
    found = in_threads(lambda number: int(ray.get(remote.remote(number))), callers, calls)
    ray.shutdown()
    return found


def contender(way: str, callers: int, calls: int) -> dict[str, float]:
    python = environment("ray", "ray") if way == "ray" else Path(sys.executable)
    command = [python, __file__, "--measure", way, "--callers", str(callers), "--calls", str(calls)]
    if way == "ray":
        return last_line(command, dict(os.environ))
    with node("--name", "one", "--cpus", "2") as env:
        return last_line(command, env)


def last_line(command: list[Any], env: dict[str, str]) -> dict[str, float]:
    output = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE).stdout
    return dict(json.loads(output.splitlines()[-1]))


def idle_mib() -> dict[str, float]:
    """Memory of a node and of a Ray head that do nothing."""
    with node("--name", "idle", "--cpus", "2") as env:
        time.sleep(SETTLE_S)
        ours = pss_mib("POTLUCK_HOME", env["POTLUCK_HOME"])
    ray = environment("ray", "ray").parent / "ray"
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        env = dict(os.environ) | {"RAY_USAGE_STATS_ENABLED": "0", "BENCH_MARK": folder}
        start = [ray, "start", "--head", "--num-cpus", "2", "--include-dashboard", "false", "--temp-dir", folder]
        subprocess.run(start, env=env, check=True, stdout=subprocess.DEVNULL)
        time.sleep(SETTLE_S)
        theirs = pss_mib("BENCH_MARK", folder)
        subprocess.run([ray, "stop", "--force"], env=env, check=True, stdout=subprocess.DEVNULL)
    return {"node": ours, "ray": theirs, "node_over_ray": ours / theirs}


def pss_mib(name: str, value: str) -> float:
    """Of all processes that have this in their environment."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{name}={value}".encode() in (process / "environ").read_bytes().split(b"\0"):
                lines = (process / "smaps_rollup").read_text().splitlines()
                total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except OSError:
            continue
    return total / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, default=1000)
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=[*OURS, "ray"], default=[*OURS, "ray"])
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.callers, options.calls)
        return
    ways = options.only
    rounds = [{way: contender(way, options.callers, options.calls) for way in ways} for _ in range(options.rounds)]
    found = {
        way: {figure: round(statistics.median(each[way][figure] for each in rounds), 1) for figure in rounds[0][way]}
        for way in ways
    }
    memory = {name: round(value, 3) for name, value in idle_mib().items()}
    report("callers", {"callers": options.callers, "calls": options.calls, **found, "idle_mib": memory})


if __name__ == "__main__":
    main()
