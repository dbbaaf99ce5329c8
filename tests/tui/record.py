"""Records what `potluck tui --demo` plays: a real node's answers, while the terminal goes through its pages.

Run: python -m tests.tui.record (about two minutes; needs gcc for the fake GPU driver). Then: make pictures
"""

from __future__ import annotations

import asyncio
import gzip
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from tests.e2e.mesh import Mesh, Node, wait_until
from tests.fake_nvml import FakeMachine
from tests.tui.screen import running

from potluck.wire.history import GpuSpan, Span
from potluck_ledger.entries import Receipt, sign
from potluck_ledger.envelope import countersign
from potluck_ledger.journal import Journal
from potluck_ledger.keys import PrivateKey, load_or_create
from potluck_node.history import HistoryFile
from potluck_tui.demo import FILE, FILE_BYTES_MAX, Line
from potluck_tui.pages import PAGES
from potluck_tui.source import LocalNode

TARGET = Path(__file__).parents[2] / "tui" / "potluck_tui" / FILE
# On the first page longer than on others: there most changes.
FIRST_S, PAGE_S = 20, 8
ROUNDS = 1
DAYS = 14
SECOND, DAY = 1_000_000, 86_400_000_000
# Of the history.
STEP_S = 300
CALLS = {
    "bob": "demo_apps.train.remote(300)",
    "eve": "list(demo_apps.transcribe.map([2.0 + number % 3 for number in range(400)]))",
    "ann": "list(demo_apps.render.map(range(600)))",
}


class Recorder(LocalNode):
    """Notes what a real node is asked, and what it answers."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.lines: list[Line] = []

    async def connect(self):
        self._client = await super().connect()
        return self

    async def aclose(self):
        await self._client.aclose()

    async def ask(self, make, kind):
        answer = await self._client.ask(make, kind)
        self._note(make(0), answer)
        return answer

    async def examine(self):
        found = await super().examine()
        # The folders of whoever records are nobody's business.
        self._note("findings", [each for each in found if not re.search(r"/tmp|/root|/home", each.says)])
        return found

    def _note(self, question, answer):
        packed = [msgspec.Raw(msgspec.json.encode(each)) for each in (question, answer)]
        self.lines.append(Line(time.time_ns() // 1000, *packed))


@contextmanager
def fake_machine() -> Iterator[FakeMachine]:
    folder = Path(tempfile.mkdtemp(prefix="potluck-gpus-"))
    try:
        folder.chmod(0o755)
        yield FakeMachine(folder)
    finally:
        shutil.rmtree(folder)


def fill_journal(home: Path) -> None:
    """Two weeks in which this machine gave more than it took, ending today."""
    home.mkdir(mode=0o711)
    own = load_or_create(home / "node.key")
    others = [PrivateKey.generate() for _ in range(3)]
    journal = Journal(home / "journal-2.sqlite", own)
    now_us = time.time_ns() // 1000
    for number in range(DAYS * 5):
        end_us = now_us - (DAYS * 5 - number) * DAY // 5
        gives, other = number % 5 != 3, others[number % 3]
        provider, caller = (own, other) if gives else (other, own)
        lease_us = (20 + 37 * number % 90) * 60 * SECOND // (1 if gives else 3)
        body = Receipt(
            f"lease-{number}", caller.peer, provider.peer, "f" * 32, ("train", "transcribe", "render")[number % 3],
            "ab" * 32, bytes(16), end_us - lease_us, end_us, lease_us, lease_us * 9 // 10, lease_us // 4000,
            1 + number % 40, bytes(32),
        )  # fmt: skip
        journal.append(countersign(caller, sign(provider, body)).encode(), end_us)
    journal.close()


def fill_history(home: Path, machine: FakeMachine) -> None:
    """A day in which both GPUs were used, the more the later it was; what they gave is in the journal, too."""
    file = HistoryFile(home / "history.jsonl")
    now_s = time.time_ns() // 10**9 // STEP_S * STEP_S
    for at_s in range(now_s - 24 * 3600, now_s, STEP_S):
        hour = at_s % 86400 / 3600
        loads = [max(0, round(1000 * math.sin((hour + 5 * number) / 4) ** 2 - 40 * number)) for number in range(2)]
        gpus = [
            GpuSpan(
                machine.uuid(number), load, 512 + 60 * load, 35 + load // 30, 60_000 + 500 * load, 1000 * (load > 0)
            )
            for number, load in enumerate(loads)
        ]
        gpu_us = sum(each.lent_milli for each in gpus) * STEP_S * 80
        file.append(Span(at_s * SECOND, STEP_S, tuple(gpus), 3, gpu_us, gpu_us))


@contextmanager
def working_mesh(machine: FakeMachine) -> Iterator[Node]:
    """Three machines that work for each other; the one with the GPUs is looked at."""
    folder = Path(tempfile.mkdtemp(prefix="potluck-demo-"))
    mesh, callers = Mesh(folder), []
    try:
        fill_journal(folder / "ann")
        fill_history(folder / "ann", machine)
        flags = ("--cpus", "8", "--memory-mib", "16384", "--device-root", str(machine.root))
        ann = mesh.node("ann", *flags, env=machine.env)
        for name in ("bob", "eve"):
            mesh.node(name, "--cpus", "4", "--memory-mib", "8192")
        wait_until(lambda: sum(peer.state == "open" for peer in ann.status().peers) == 2, "the mesh")
        for node in mesh.nodes:
            code = f"from tests.tui import demo_apps\nwith demo_apps.app.run(show_progress=False): {CALLS[node.name]}"
            env = node.env | {"PYTHONPATH": os.getcwd()}
            callers.append(subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.DEVNULL))
        wait_until(lambda: sum(worker.state == "running" for worker in ann.status().workers) >= 2, "work")
        yield ann
    finally:
        for caller in callers:
            caller.kill()
            caller.wait()
        mesh.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def play(machine: FakeMachine) -> None:
    """GPUs whose figures change."""
    while True:
        wave = math.sin(time.monotonic() / 4)
        for number in range(2):
            for figure in ("power", "used", "busy", "temperature"):
                machine.drop(f"gpu {number} {figure} ")
        machine.say(f"gpu 0 power {round(420_000 + 180_000 * wave)}", f"gpu 0 used {round(46_000 + 9_000 * wave)}")
        # All the time by so much; of a process that there is not.
        machine.say(
            f"gpu 0 busy 1 1 1000000 1000000 {round(75 + 20 * wave)}", f"gpu 0 temperature {round(68 + 6 * wave)}"
        )
        machine.say("gpu 1 power 62000", "gpu 1 used 512", "gpu 1 temperature 38")
        await asyncio.sleep(1)


async def record(node: Node, machine: FakeMachine) -> list[Line]:
    recorder = Recorder(node.home / "node.sock")
    playing = asyncio.create_task(play(machine))
    async with running(None, (120, 40), recorder) as (_app, pilot):
        for _ in range(ROUNDS):
            for page in PAGES:
                await pilot.press(page.key)
                await asyncio.sleep(FIRST_S if page is PAGES[0] else PAGE_S)
    playing.cancel()
    return recorder.lines


def main() -> None:
    with fake_machine() as machine, working_mesh(machine) as node:
        # For the doctor, a process of the terminal's.
        os.environ.update(machine.env)
        lines = asyncio.run(record(node, machine))
    packed = gzip.compress(b"\n".join(msgspec.json.encode(line) for line in lines), mtime=0)
    assert len(packed) <= FILE_BYTES_MAX, len(packed)
    TARGET.write_bytes(packed)
    print(f"{len(lines)} answers, {len(packed)} bytes in {TARGET}")


if __name__ == "__main__":
    main()
