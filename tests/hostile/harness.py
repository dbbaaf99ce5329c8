"""Runs hostile programs in sandboxes, and watches what becomes of the host, the node and its other workers."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import sys
import types
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cloudpickle
import trio
from tests.conformance import check_sandbox as suite
from tests.hostile.decoys import NOTE, Decoys
from tests.hostile.weakened import Weakness
from tests.meshnode.sandbox import host_image, worlds

from potluck.wire.worker import InputSucceeded, WorkerLog
from potluck_node.sandbox.interface import Launcher, Limits, Worker, WorkerEnded, Zygote

# `inside_…` is sent into the sandbox by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

PROGRAMS = Path(__file__).parent / "programs"
GUARD = """import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")
"""
LIMITS = Limits(memory_mib=256, pids=60, scratch_mib=32, open_files=256, file_mib=1024)
# How long a program that never ends is left alone before the node kills it, seconds.
ENDLESS_S = 1.0


@dataclass(frozen=True)
class Lived:
    """The program ran for as long as it was let."""

    end: WorkerEnded


Outcome = suite.Outcome | WorkerEnded | Lived
Check = Callable[[Outcome], bool]


@dataclass(frozen=True)
class Case:
    """`target` makes the program's arguments. `limits` replaces some of `LIMITS`. `gvisor` is what is contained in that
    tier, whose kernel is the sandbox's own. `weakness` is the protection without which the program gets through, or
    the reason why none is taken away; `reached` is how that shows, by default in a result that is not contained.
    `needs` is the control group without which the limit does not hold."""

    contained: Check
    weakness: Weakness | str
    gvisor: Check | None = None
    reached: Check | None = None
    target: Callable[[Decoys], dict[str, Any]] = lambda decoys: {}
    limits: dict[str, int] | None = None
    endless: bool = False
    needs: str = ""

    def check(self, tier: str) -> Check:
        return self.gvisor if tier == "gvisor" and self.gvisor else self.contained

    def got_through(self, outcome: Outcome, tier: str) -> bool:
        return self.reached(outcome) if self.reached else came_back(outcome) and not self.check(tier)(outcome)


def told(outcome: Outcome) -> object:
    """For messages of failed tests."""
    return outcome.value if came_back(outcome) else outcome  # type: ignore[union-attr]


def returned(check: Callable[[Any], bool]) -> Check:
    """The program came back, and `check` holds for what it got."""
    return lambda outcome: came_back(outcome) and check(outcome.value)  # type: ignore[union-attr]


def came_back(outcome: Outcome) -> bool:
    return isinstance(outcome, suite.Outcome) and isinstance(outcome.message, InputSucceeded)


def raised(text: str) -> Check:
    return lambda outcome: isinstance(outcome, suite.Outcome) and text in str(outcome.message)  # type: ignore[union-attr]


def ended(reason: str) -> Check:
    return lambda outcome: isinstance(outcome, WorkerEnded) and reason in outcome.reason


def lived(outcome: Outcome) -> bool:
    return isinstance(outcome, Lived) and "signal 9" in outcome.end.reason


def either(*checks: Check) -> Check:
    return lambda outcome: any(check(outcome) for check in checks)


def inside_attack(tools: str, source: str, arguments: dict[str, Any]) -> object:
    module = sys.modules["tools"] = types.ModuleType("tools")
    exec(tools, vars(module))
    names: dict[str, Any] = {}
    exec(source, names)
    return names["attack"](**arguments)


def inside_note(name: str) -> None:
    Path("/tmp", name).touch()


def inside_unpickle(payload: bytes) -> None:
    pickle.loads(payload)


def image(folder: Path) -> None:
    """What `folder` needs besides: a place to show things at, and what everybody might write if the image could be."""
    root, _ = host_image.build(folder)
    for name in ("home", "open"):
        (root / name).mkdir()
    (root / "open" / "file").touch()
    shutil.copy("/usr/bin/id", root / "open" / "id")
    for path, mode in (("open", 0o777), ("open/file", 0o666), ("open/id", 0o4755)):
        (root / path).chmod(mode)
    return root


@asynccontextmanager
async def attacked(
    name: str, case: Case, launcher: Launcher, folder: Path, decoys: Decoys, weakness: Weakness | None = None
) -> AsyncIterator[tuple[Zygote, Worker, Outcome]]:
    """The sandbox after the program has run in it."""
    image(folder)
    more = weakness or Weakness("")
    limits = replace(LIMITS, **{**(case.limits or {}), **more.limits})
    arguments = {**case.target(decoys), **more.target(decoys)}
    with more.node():
        async with suite.one_worker(
            worlds.opener_of(launcher, folder), limits=limits, more_binds=more.binds(decoys)
        ) as (zygote, worker):
            yield zygote, worker, await outcome_of(name, case, worker, arguments)


async def outcome_of(name: str, case: Case, worker: Worker, arguments: dict[str, Any]) -> Outcome:
    tools, source = ((PROGRAMS / f"{each}.py").read_text() for each in ("tools", name))
    await suite.post(worker, inside_attack, tools, source, arguments)
    logs: list[tuple[int, bytes]] = []
    try:
        with trio.move_on_after(ENDLESS_S if case.endless else suite.CHECK_TIMEOUT_S):
            while isinstance(message := await worker.receive(), WorkerLog) or is_forged(message):
                logs += [(message.stream, message.data)] if isinstance(message, WorkerLog) else []
            return suite.Outcome(message, logs)  # type: ignore[arg-type]
        await worker.kill()
        return Lived(await suite.end_of(worker))
    except WorkerEnded as end:
        return end


def is_forged(message: object) -> bool:
    """A result of an input that was never sent: the layer above drops it."""
    return isinstance(message, InputSucceeded) and message.input == 999


async def goes_on(zygote: Zygote, worker: Worker, outcome: Outcome) -> None:
    """What is left of an attacked sandbox obeys the node."""
    if isinstance(outcome, suite.Outcome):
        await worker.kill()
        assert (await suite.end_of(worker)).status == -signal.SIGKILL
    if zygote.alive:
        await suite.goes_on(zygote)


@asynccontextmanager
async def bystander(launcher: Launcher, folder: Path) -> AsyncIterator[Callable[[], Any]]:
    """Another sandbox of this node; call what is given to see that it still works."""
    async with suite.one_worker(worlds.opener_of(launcher, folder)) as (zygote, worker):
        await suite.call(worker, inside_note, NOTE)
        names = iter(range(1000))

        async def check() -> None:
            assert (await suite.call(worker, suite.inside_double, 21)).value == 42
            await suite.goes_on(zygote, f"after-{next(names)}")

        yield check


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
