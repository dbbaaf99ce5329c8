"""What the benchmarks share: environments of their own for peers, medians, nodes, and one JSON document as output."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / ".make" / "bench"


def environment(name: str, *packages: str) -> Path:
    """The Python of a virtual environment with `packages`, made once."""
    python = ENVIRONMENTS / name / "bin" / "python"
    if not (ENVIRONMENTS / name / ".done").exists():
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "-q", "--clear", "--python", sys.executable, ENVIRONMENTS / name], check=True)
        subprocess.run([*uv, "pip", "install", "-q", "--python", python, *packages], check=True)
        (ENVIRONMENTS / name / ".done").touch()
    return python


def median_us(run: Callable[[], object], times: int, warmup: int = 20) -> float:
    """Median microseconds of `run` over `times` runs."""
    for _ in range(warmup):
        run()
    taken = []
    for _ in range(times):
        start = time.perf_counter_ns()
        run()
        taken.append(time.perf_counter_ns() - start)
    return statistics.median(taken) / 1000


def wall_ms(command: list[str | Path], env: dict[str, str] | None = None) -> float:
    """Milliseconds of one process from start to end."""
    start = time.perf_counter_ns()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=env)
    return (time.perf_counter_ns() - start) / 1e6


@contextmanager
def node(*flags: str, config: str = "") -> Iterator[dict[str, str]]:
    """A node process of its own, with a `config.toml`; yields the environment that points to it."""
    with tempfile.TemporaryDirectory(prefix="potluck-bench-") as home:
        (Path(home) / "config.toml").write_text(config)
        env = os.environ | {"POTLUCK_HOME": home}
        with (Path(home) / "node.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "potluck_node.main", *flags], env=env, stdout=subprocess.PIPE, stderr=log
            )
        assert process.stdout
        assert process.stdout.readline() == b"ready\n", (Path(home) / "node.log").read_text()
        try:
            yield env
        finally:
            process.terminate()
            process.wait()


@contextmanager
def two_nodes(*flags: str) -> Iterator[dict[str, str]]:
    """A caller's node, with `flags`, that knows a provider's; yields the environment that points to the caller's."""
    with node("--name", "caller", "--no-offer", *flags) as caller:
        address = status(caller)["addresses"][0]
        with node("--name", "provider", "--cpus", "2", "--bootstrap", address):
            while not any(peer["state"] == "open" for peer in status(caller)["peers"]):
                time.sleep(0.2)
            yield caller


def status(env: dict[str, str]) -> dict[str, Any]:
    """`potluck status --json` of that node."""
    output = subprocess.run(
        [sys.executable, "-m", "potluck.cli.main", "status", "--json"], env=env, check=True, capture_output=True
    )
    return dict(json.loads(output.stdout))


def report(name: str, figures: dict[str, Any]) -> None:
    """Print the one JSON document of a benchmark."""
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    print(json.dumps({"benchmark": name, "machine": machine, **figures}, indent=2))
