"""What each sandbox tier costs: its start against a bare interpreter, and loops inside against the same ones outside.

Run: python benchmarks/sandbox.py [repeats]. All cases alternate in one run. Prints JSON: medians and ratios.
"""

from __future__ import annotations

import contextlib
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import trio

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._common import environment, report
from tests.meshnode.sandbox import host_image

from potluck.errors import SandboxError
from potluck.wire.common import FunctionSpec
from potluck.wire.worker import InputSucceeded, RunInput
from potluck_node.sandbox.bwrap import ENVIRONMENT, RUNNER, BwrapLauncher
from potluck_node.sandbox.gvisor import GvisorLauncher
from potluck_node.sandbox.interface import Launcher, Limits, SandboxSpec, Worker, Zygote
from potluck_node.sandbox.spares import Spares

cloudpickle.register_pickle_by_value(sys.modules[__name__])

PYTHON_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
CALLS = 200
SPARE_READY_S = 1.0
SITE = "/packages"

Times = dict[str, list[float]]


def apply(function: Callable[..., float], *args: object) -> float:
    return function(*args)


def system_calls(count: int) -> float:
    """Seconds for `count` calls that ask the kernel for something: two of them look at a file."""
    import os
    import time

    start = time.perf_counter()
    for _ in range(count):
        os.getppid()
        os.stat("/tmp")
        os.close(os.open("/dev/null", os.O_RDONLY))
    return time.perf_counter() - start


def numpy_loop(count: int) -> float:
    """Seconds for products of matrices, which stay in user space."""
    import time

    import numpy

    matrix = numpy.random.default_rng(1).random((300, 300))
    start = time.perf_counter()
    for _ in range(count):
        matrix = matrix @ matrix
        matrix /= matrix.max()
    return time.perf_counter() - start


LOOPS: dict[str, Callable[[], float]] = {
    "20,000 rounds of 4 system calls": partial(system_calls, 20_000),
    "200 products of 300x300 matrices": partial(numpy_loop, 200),
}


def bare(times: Times, name: str, program: str) -> None:
    start = time.perf_counter()
    subprocess.run([host_image.PYTHON, "-c", program], check=True, env=ENVIRONMENT)
    times.setdefault(name, []).append(time.perf_counter() - start)


async def ready_worker(zygote: Zygote, name: str) -> Worker:
    worker = await zygote.spawn(name)
    await worker.receive()
    return worker


async def call(worker: Worker, function: Callable[..., Any], *args: object) -> Any:
    await worker.send(RunInput(1, cloudpickle.dumps(((function, *args), {}))))
    answer = await worker.receive()
    assert isinstance(answer, InputSucceeded), answer
    return pickle.loads(answer.payload)


async def sandboxed(times: Times, launcher: Launcher, spec: SandboxSpec) -> None:
    def took(what: str, since: float) -> None:
        times.setdefault(f"{launcher.tier}: {what}", []).append(time.perf_counter() - since)

    async with trio.open_nursery() as nursery:
        start = time.perf_counter()
        zygote = await launcher.start(nursery, spec)
        took("zygote ready", start)
        worker = await ready_worker(zygote, "first")
        took("first worker ready", start)
        start = time.perf_counter()
        await ready_worker(zygote, "second")
        took("further worker ready", start)
        for _ in range(CALLS):
            start = time.perf_counter()
            await call(worker, abs, -1)
            took("call", start)
        for name, loop in LOOPS.items():
            times.setdefault(f"{launcher.tier}: {name}", []).append(await call(worker, loop))
        start = time.perf_counter()
        await zygote.aclose()
        took("close", start)


async def prestarted(times: Times, launcher: BwrapLauncher, spec: SandboxSpec) -> None:
    """A start for which a spare was waiting."""
    async with trio.open_nursery() as nursery:
        spares = Spares(launcher)
        await nursery.start(spares.serve)
        first = await spares.start(nursery, spec)
        # A spare's interpreter is up when it has stopped using the processor, which takes well below this long.
        await trio.sleep(SPARE_READY_S)
        start = time.perf_counter()
        second = await spares.start(nursery, spec)
        await ready_worker(second, "first")
        name = f"{launcher.tier}, pre-started: first worker ready"
        times.setdefault(name, []).append(time.perf_counter() - start)
        await first.aclose()
        await second.aclose()
        nursery.cancel_scope.cancel()


def outside(times: Times, site: Path) -> None:
    """The loops in a bare interpreter, as the same user's process."""
    for name, loop in LOOPS.items():
        program = "import pickle, sys; print(pickle.load(sys.stdin.buffer)())"
        done = subprocess.run(
            [host_image.PYTHON, "-c", program], input=cloudpickle.dumps(loop), capture_output=True, check=True,
            env={**ENVIRONMENT, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
        times.setdefault(f"bare: {name}", []).append(float(done.stdout))


async def measure(repeats: int, folder: Path) -> Times:
    python = environment("numpy", "numpy", "cloudpickle")
    site = next((python.parents[1] / "lib").glob("python*")) / "site-packages"
    root, binds = host_image.build(folder)
    (root / SITE.strip("/")).mkdir()
    function = FunctionSpec("bench", "apply", "", PYTHON_VERSION, pickled=cloudpickle.dumps(apply))
    spec = SandboxSpec(
        root=root, binds=(*binds, (site, SITE)), function=function, python=host_image.PYTHON,
        env={"PYTHONPATH": SITE, "OPENBLAS_NUM_THREADS": "1"}, limits=Limits(memory_mib=1024), owner="bench",
    )  # fmt: skip
    launchers = [BwrapLauncher()]
    with contextlib.suppress(SandboxError):
        launchers.append(GvisorLauncher())
    for launcher in launchers:
        await sandboxed({}, launcher, spec)  # warm the page cache
    program = runner_program(folder)
    times: Times = {}
    for _ in range(repeats):
        bare(times, "bare interpreter", "pass")
        bare(times, "interpreter with runner", program)
        outside(times, site)
        for launcher in launchers:
            await sandboxed(times, launcher, spec)
            await prestarted(times, launcher, spec)
    return times


def runner_program(folder: Path) -> str:
    """Loads the runner as the sandbox does: without the rest of the SDK."""
    (folder / "path").mkdir()
    (folder / "path" / "potluck_runner").symlink_to(RUNNER)
    return f"import sys; sys.path.insert(0, {str(folder / 'path')!r}); import potluck_runner.zygote"


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    with tempfile.TemporaryDirectory() as folder:
        times = trio.run(measure, repeats, Path(folder))
    medians = {name: statistics.median(each) for name, each in times.items()}
    base = medians["bare interpreter"]
    figures = {
        name: {"median_ms": round(value * 1e3, 3), "ratio": round(value / floor(name, medians, base), 2)}
        for name, value in medians.items()
    }
    report("sandbox", {"repeats": repeats, **figures})


def floor(name: str, medians: dict[str, float], base: float) -> float:
    """What a figure is compared with: a loop with the same one outside, all else with a bare interpreter."""
    return medians.get(f"bare: {name.partition(': ')[2]}", base)


if __name__ == "__main__":
    main()
