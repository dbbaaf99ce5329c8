"""How soon a machine is its owner's again: real nodes, a real terminal, a GPU played by a fake driver. JSON.

`no_new_work_ms` is from a key pressed to when the node says that it takes no work; beside it what asking takes, which
is part of it. `vram_free_ms` is from the end of the grace, of a function that will not go, to when its process is gone,
with which a driver frees what it had; `sandbox_gone_ms` to when the kernel has cleared its whole sandbox away.

Run: python benchmarks/yielding.py [rounds]
"""

from __future__ import annotations

import os
import pty
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._common import median_us, report
from tests.e2e import yield_sample
from tests.e2e.mesh import Mesh, Node, wait_until
from tests.fake_nvml import FakeMachine

from potluck.wire import control
from potluck_node.devices.processes import owners

POLICY = "[policy]\nidle_s = 600\ngrace_s = 1\n"
# Longer than `idle_s`.
LONG_AGO_S = 10_000


def main(rounds: int = 20) -> None:
    folder = Path(tempfile.mkdtemp(prefix="potluck-yielding-"))
    # Sandboxes run as another user.
    folder.chmod(0o755)
    try:
        with nodes(folder) as (caller, ann):
            os.environ["POTLUCK_HOME"] = str(caller.home)
            with yield_sample.app.run(show_progress=False):
                measure(ann, rounds)
    finally:
        shutil.rmtree(folder)


@contextmanager
def nodes(folder: Path) -> Iterator[tuple[Node, Node]]:
    mesh, machine = Mesh(folder), FakeMachine(folder, gpus=1)
    try:
        caller = mesh.caller()
        (folder / "ann").mkdir(mode=0o711)
        (folder / "ann/config.toml").write_text(POLICY)
        flags = ("--cpus", "2", "--memory-mib", "2048", "--device-root", str(machine.root))
        ann = mesh.node("ann", *flags, env=machine.env)
        wait_until(lambda: caller.status().peers and caller.status().peers[0].gpus, "finding the GPU")
        yield caller, ann
    finally:
        mesh.stop()


def measure(ann: Node, rounds: int) -> None:
    main_end, terminal = pty.openpty()
    path, stopped, freed, gone = os.ttyname(terminal), [], [], []
    client = ann.client()

    def status() -> control.Status:
        return client.ask(control.AskStatus, control.Status)

    asking_us = median_us(status, 50)
    for _ in range(rounds):
        leave(path)
        wait_until(lambda: not status().policy, "nobody being there")
        before = processes(ann)
        call = yield_sample.stubborn.spawn()
        wait_until(lambda: runs(ann), "the function running")
        sandbox, worker = processes(ann) - before, runs(ann)
        begun = time.monotonic()
        os.write(main_end, b"x\n")
        os.read(terminal, 16)
        until(lambda: status().paused)
        stopped.append(time.monotonic() - begun)
        ends = status().policy[0].since_us / 1e6 + 1
        await_end(worker)
        freed.append(time.time() - ends)
        await_end(sandbox)
        gone.append(time.time() - ends)
        call.cancel()
    client.close()
    report("yielding", {
        "rounds": rounds, "grace_s": 1, "asking_ms": round(asking_us / 1000, 2),
        "no_new_work_ms": figures(stopped), "vram_free_ms": figures(freed),
        "sandbox_gone_ms": figures(gone),
    })  # fmt: skip


def leave(path: str) -> None:
    """As if nobody had typed for long."""
    then = time.time() - LONG_AGO_S
    os.utime(path, (then, then))


def until(condition: Callable[[], object]) -> None:
    """Looked at every millisecond."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def processes(ann: Node) -> set[int]:
    """All below the node, as the machine numbers them."""
    assert ann.process
    return set(owners({"": ann.process.pid}))


def await_end(pids: set[int]) -> None:
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def runs(ann: Node) -> set[int]:
    """The processes of the function."""
    found = set()
    for pid in processes(ann):
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text() == "stubborn\n":
                found.add(pid)
    return found


def figures(seconds: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(seconds) * 1000, 1), "max": round(max(seconds) * 1000, 1)}


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
