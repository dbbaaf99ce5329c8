"""The contributor's terminal: first paint on a pseudo-terminal, and what it and its node take while nothing happens.

python benchmarks/tui.py [--rounds 15] [--idle 60] [--nodes 1,3]
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._common import report, wall_ms
from tests.e2e.mesh import Mesh, Node, run_cli, wait_until

ROWS, COLUMNS = 24, 80
# What the node alone knows, and what only the whole screen has: the keys in the last line.
REAL, WHOLE = b"Lends 1 core", b"Resume"
TICKS_S = os.sysconf("SC_CLK_TCK")
PATIENCE_S = 30


class Terminal:
    """`potluck tui` on a pseudo-terminal of 80x24."""

    def __init__(self, node: Node) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        env = node.env | {"TERM": "xterm-256color"}
        self.begun, self.seen = time.perf_counter(), b""
        command = [Path(sys.executable).with_name("potluck"), "tui"]
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env)
        os.close(slave)

    def until_ms(self, word: bytes) -> float:
        """Milliseconds from the start until `word` was written."""
        while word not in self.seen:
            readable, _, _ = select.select([self.master], [], [], PATIENCE_S)
            assert readable, self.seen[-1000:]
            self.seen += os.read(self.master, 1 << 16)
        return (time.perf_counter() - self.begun) * 1000

    def idle(self, seconds: float) -> None:
        """Read what it writes, so that it is never held up."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.master], [], [], left)[0]:
                os.read(self.master, 1 << 16)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)


def paint_ms(node: Node, rounds: int) -> dict[str, float]:
    """Medians, the bare interpreter in the same rounds."""
    taken: dict[str, list[float]] = {"bare": [], "first_paint": [], "whole": []}
    for number in range(rounds + 2):
        bare = wall_ms([sys.executable, "-c", "pass"])
        terminal = Terminal(node)
        figures = {"bare": bare, "first_paint": terminal.until_ms(REAL), "whole": terminal.until_ms(WHOLE)}
        terminal.close()
        if number >= 2:  # the first rounds write byte code and fill the page cache
            for name, value in figures.items():
                taken[name].append(value)
    return {name: round(statistics.median(values), 1) for name, values in taken.items()}


def family(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield from family(int(child))


def cpu_s(pid: int) -> float:
    """Seconds of processor that a process, and those below it, took."""
    ticks = 0
    for each in family(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_S


def resident_mib(pid: int) -> float:
    kib = 0
    for each in family(pid):
        lines = Path(f"/proc/{each}/status").read_text().splitlines()
        kib += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return round(kib / 1024, 1)


@contextmanager
def private_mesh(size: int) -> Iterator[Node]:
    """The first of `size` nodes of a private mesh, which knows the others."""
    with tempfile.TemporaryDirectory(prefix="potluck-bench-") as folder:
        mesh = Mesh(Path(folder))
        try:
            made = run_cli(Node(mesh.folder, "ann"), "mesh", "create", "lab", "--name", "ann")
            assert not made.returncode, made.stderr
            first = mesh.provider("ann")
            token = run_cli(first, "mesh", "invite", "--uses", str(size)).stdout
            for name in ["bob", "eve"][: size - 1]:
                joined = run_cli(Node(mesh.folder, name), "join", "--name", name, stdin=token)
                assert not joined.returncode, joined.stderr
                mesh.provider(name)
            wait_until(lambda: sum(peer.state == "open" for peer in first.status().peers) == size - 1, "the mesh")
            yield first
        finally:
            mesh.stop()


def idle(node: Node, seconds: float) -> dict[str, float]:
    """Per cent of a core, and MiB, of a node and its terminal that nobody touches."""
    assert node.process
    pid = node.process.pid
    alone = _percent([pid], lambda: time.sleep(seconds), seconds)
    terminal = Terminal(node)
    terminal.until_ms(WHOLE)
    terminal.idle(5)
    pids = [pid, terminal.process.pid]
    watched = _percent(pids, lambda: terminal.idle(seconds), seconds)
    found = {
        "node_alone_cpu_percent": alone[0],
        "node_cpu_percent": watched[0],
        "terminal_cpu_percent": watched[1],
        "both_cpu_percent": round(sum(watched), 2),
        "node_mib": resident_mib(pid),
        "terminal_mib": resident_mib(pids[1]),
    }
    terminal.close()
    return found


def _percent(pids: Sequence[int], wait: Callable[[], object], seconds: float) -> list[float]:
    before = [cpu_s(pid) for pid in pids]
    wait()
    return [round(100 * (cpu_s(pid) - was) / seconds, 2) for pid, was in zip(pids, before, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--idle", type=float, default=60, help="Seconds; at least 60 say something.")
    parser.add_argument("--nodes", default="1,3")
    options = parser.parse_args()
    figures: dict[str, object] = {"rounds": options.rounds, "idle_s": options.idle}
    for size in map(int, options.nodes.split(",")):
        with private_mesh(size) as node:
            if options.rounds and "paint_ms" not in figures:
                middle = paint_ms(node, options.rounds)
                figures |= {
                    "paint_ms": middle,
                    "first_paint_over_bare": round(middle["first_paint"] / middle["bare"], 1),
                }
            if options.idle:
                figures[f"idle_of_{size}"] = idle(node, options.idle)
    report("tui", figures)


if __name__ == "__main__":
    main()
