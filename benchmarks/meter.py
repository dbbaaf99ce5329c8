"""How far receipts are from the truth: calls on a fake GPU whose schedule is known, through real nodes and sandboxes.

Lease: the receipt's against the time between first and last statement of the function, by its own clock. Busy and
energy: the receipt's against what the fake driver was told to play. Run: python benchmarks/meter.py [seconds]
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._common import report
from tests.e2e import gpu_sample
from tests.e2e.mesh import Mesh, Node, wait_until
from tests.fake_nvml import FakeMachine

from potluck_ledger.entries import Receipt
from potluck_ledger.journal import verify
from potluck_node.devices.processes import owners

# (name, period µs, on µs, percent while on, whether the driver tells processes apart)
CASES = (
    ("steady 60 %", 1_000_000, 1_000_000, 60, True),
    ("50 ms of 100 ms", 100_000, 50_000, 100, True),
    ("300 ms of 1 s", 1_000_000, 300_000, 100, True),
    ("2 s of 3 s", 3_000_000, 2_000_000, 100, True),
    ("whole GPU only, 300 ms of 1 s", 1_000_000, 300_000, 100, False),
)
POWER_MW = 100_000


def main() -> None:
    """Run every case and print one JSON document."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 8.0
    folder = Path(tempfile.mkdtemp(prefix="potluck-meter-"))
    folder.chmod(0o755)  # sandboxes run as a user of their own
    machine = FakeMachine(folder, gpus=1)
    mesh = Mesh(folder)
    try:
        caller = mesh.caller()
        flags = ("--cpus", "2", "--memory-mib", "2048", "--device-root", str(machine.root))
        provider = mesh.node("ann", *flags, env=machine.env)
        wait_until(lambda: caller.status().peers and caller.status().peers[0].gpus, "finding the GPU")
        os.environ["POTLUCK_HOME"] = str(caller.home)
        cases = {case[0]: _measure(machine, caller, provider, seconds, *case[1:]) for case in CASES}
    finally:
        mesh.stop()
        shutil.rmtree(folder)
    worst = {key: max(abs(case[key]) for case in cases.values()) for key in ("lease_ms", "busy_percent")}
    report("meter", {"seconds": seconds, "error": cases, "worst": worst})


def _measure(
    machine: FakeMachine, caller: Node, provider: Node, seconds: float,
    period_us: int, on_us: int, percent: int, by_process: bool,
) -> dict[str, Any]:  # fmt: skip
    before, results = len(_receipts(caller)), []
    with gpu_sample.app.run(show_progress=False):
        thread = threading.Thread(target=lambda: results.append(gpu_sample.timed.remote(seconds)))
        thread.start()
        pids: list[int] = []
        wait_until(lambda: pids.extend(_named(provider)) or pids, "the call running")
        start_us = time.time_ns() // 1000 + 200_000
        machine.say(
            f"gpu 0 utilisation {int(by_process)}", f"gpu 0 busy {pids[0]} {start_us} {period_us} {on_us} {percent}"
        )
        thread.join()
        wait_until(lambda: len(_receipts(caller)) > before, "the receipt")
    machine.drop("gpu 0 busy")
    receipt, (begin_us, end_us) = _receipts(caller)[-1], results[0]
    busy_us = (_on_until(end_us - start_us, period_us, on_us)) * percent / 100
    energy_mj = POWER_MW * (end_us - begin_us) / 1e6
    return {
        "lease_ms": round((receipt.lease_us - (end_us - begin_us)) / 1000, 2),
        "busy_percent": round(100 * (receipt.busy_us - busy_us) / busy_us, 2),
        "energy_percent": round(100 * (receipt.energy_mj - energy_mj) / energy_mj, 2),
        "method": receipt.method,
        "quality": receipt.quality,
    }


def _on_until(length_us: int, period_us: int, on_us: int) -> int:
    return length_us // period_us * on_us + min(length_us % period_us, on_us)


def _receipts(node: Node) -> list[Receipt]:
    return [entry.receipt for entry in verify(*node.journal())]


def _named(provider: Node) -> list[int]:
    """The process that runs the function, by the name that it gave itself."""
    assert provider.process
    found = []
    for pid in owners({"": provider.process.pid}):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text() == "timed\n":
                found.append(pid)
    return found


if __name__ == "__main__":
    main()
