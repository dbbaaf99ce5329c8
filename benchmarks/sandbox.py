"""How long a sandbox takes to start, against a bare interpreter. All cases alternate in one run. Prints JSON.

Run: python benchmarks/sandbox.py [repeats]
"""

from __future__ import annotations

import json
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.meshnode.sandbox import host_image

from potluck.wire.common import FunctionSpec
from potluck.wire.worker import RunInput
from potluck_node.sandbox.bwrap import ENVIRONMENT, RUNNER, BwrapLauncher
from potluck_node.sandbox.interface import SandboxSpec, Worker, Zygote

PYTHON_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
# `abs` is pickled as its name: what is measured is the sandbox, not the imports of a function.
FUNCTION = FunctionSpec("bench", "abs", "", PYTHON_VERSION, pickled=pickle.dumps(abs))
CALLS = 200

Times = dict[str, list[float]]


def bare(times: Times, name: str, program: str) -> None:
    start = time.perf_counter()
    subprocess.run([host_image.PYTHON, "-c", program], check=True, env=ENVIRONMENT)
    times.setdefault(name, []).append(time.perf_counter() - start)


async def ready_worker(zygote: Zygote, name: str) -> Worker:
    worker = await zygote.spawn(name)
    await worker.receive()
    return worker


async def call(worker: Worker) -> None:
    await worker.send(RunInput(1, pickle.dumps(((-1,), {}))))
    await worker.receive()


async def sandboxed(times: Times, launcher: BwrapLauncher, spec: SandboxSpec) -> None:
    async with trio.open_nursery() as nursery:
        start = time.perf_counter()
        zygote = await launcher.start(nursery, spec)
        times.setdefault("zygote ready", []).append(time.perf_counter() - start)
        worker = await ready_worker(zygote, "first")
        times.setdefault("first worker ready", []).append(time.perf_counter() - start)
        start = time.perf_counter()
        await ready_worker(zygote, "second")
        times.setdefault("further worker ready", []).append(time.perf_counter() - start)
        for _ in range(CALLS):
            start = time.perf_counter()
            await call(worker)
            times.setdefault("call", []).append(time.perf_counter() - start)
        start = time.perf_counter()
        await zygote.aclose()
        times.setdefault("close", []).append(time.perf_counter() - start)


async def measure(repeats: int, folder: Path) -> Times:
    root, binds = host_image.build(folder)
    launcher = BwrapLauncher()
    spec = SandboxSpec(root=root, binds=binds, function=FUNCTION, python=host_image.PYTHON)
    await sandboxed({}, launcher, spec)  # warm the page cache
    program = runner_program(folder)
    times: Times = {}
    for _ in range(repeats):
        bare(times, "bare interpreter", "pass")
        bare(times, "interpreter with runner", program)
        await sandboxed(times, launcher, spec)
    return times


def runner_program(folder: Path) -> str:
    """Loads the runner as the sandbox does: without the rest of the SDK."""
    (folder / "path").mkdir()
    (folder / "path" / "potluck_runner").symlink_to(RUNNER)
    return f"import sys; sys.path.insert(0, {str(folder / 'path')!r}); import potluck_runner.zygote"


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    with tempfile.TemporaryDirectory() as folder:
        times = trio.run(measure, repeats, Path(folder))
    base = statistics.median(times["bare interpreter"])
    report = {
        name: {"median_ms": round(statistics.median(each) * 1e3, 3), "ratio": round(statistics.median(each) / base, 2)}
        for name, each in times.items()
    }
    print(json.dumps({"repeats": repeats, "python": sys.version.split()[0], **report}, indent=2))


if __name__ == "__main__":
    main()
