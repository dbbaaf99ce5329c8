"""Programs that attack their surroundings, each in a sandbox: what they get, and that everybody else goes on."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from tests.conformance import check_sandbox as suite
from tests.meshnode.sandbox import worlds

from potluck.wire.worker import InputSucceeded, WorkerLog
from potluck_node.sandbox.bwrap import BwrapLauncher
from potluck_node.sandbox.interface import Limits, Worker, WorkerEnded

# `inside_attack` is sent into the sandbox by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

PROGRAMS = Path(__file__).parent / "programs"
GUARD = """import os

if os.environ.get("POTLUCK_SANDBOX") != "1" or os.uname().nodename != "potluck" or os.getuid() == 0:
    raise SystemExit("This program attacks its surroundings. It runs only inside a Potluck sandbox.")
"""
LIMITS = Limits(memory_mib=256, pids=60, scratch_mib=32, open_files=256)
REFUSED = {errno.EPERM, errno.ENOSYS, errno.EACCES, errno.EINVAL}

Check = Callable[[Any], bool]


def inside_attack(source: str) -> object:
    names: dict[str, Any] = {}
    exec(source, names)
    return names["attack"]()


def returned(check: Check) -> Check:
    """The program came back, and `check` holds for what it got."""
    return lambda outcome: isinstance(outcome, suite.Outcome) and check(outcome.value)


def ended(reason: str) -> Check:
    return lambda outcome: isinstance(outcome, WorkerEnded) and reason in outcome.reason


def either(*checks: Check) -> Check:
    return lambda outcome: any(check(outcome) for check in checks)


OUT_OF_MEMORY = ended("out of memory: limit 256 MiB")
KILLED = ended("signal 9")

# Program → what may have come of it.
CONTAINED: dict[str, Check] = {
    "fork_bomb": either(returned(lambda refused: refused > 0), KILLED, OUT_OF_MEMORY),
    "memory_bomb": OUT_OF_MEMORY,
    "scratch_bomb": returned(lambda errors: 0 not in errors.values()),
    "inode_bomb": either(returned(lambda error: error != 0), OUT_OF_MEMORY),
    "log_flood": KILLED,
    "descriptor_hoard": returned(lambda error: error in (errno.EMFILE, errno.ETOOMANYREFS, errno.EAGAIN)),
    "kill_everybody": returned(lambda processes: 1 in processes),
    "zygote_robbery": returned(lambda ways: all(way.startswith("refused") for way in ways.values())),
    "namespace_escape": returned(lambda errors: set(errors.values()) <= REFUSED),
    "host_search": returned(
        lambda seen: seen["found"] == [] and seen["processes"] < 20 and seen["abstract sockets"] == 0
    ),
    "network_search": returned(lambda got: not any(got.values())),
    "protocol_forgery": ended("broke the protocol"),
    "hostile_result": ended("exit 66"),  # it ran where it was made
    "eternal": KILLED,
}
# Those that never end by themselves → after how many log messages they are killed.
KILLED_AFTER = {"log_flood": 200, "eternal": 1}


@pytest.fixture(scope="module")
def launcher() -> BwrapLauncher:
    return BwrapLauncher()


async def result_of(worker: Worker, name: str) -> suite.Outcome | WorkerEnded:
    await suite.post(worker, inside_attack, (PROGRAMS / f"{name}.py").read_text())
    logs = []
    try:
        while isinstance(message := await worker.receive(), WorkerLog) or is_forged(message):
            logs.append((0, b""))
            if len(logs) >= KILLED_AFTER.get(name, len(logs) + 1):
                await worker.kill()
        return suite.Outcome(message, logs)  # type: ignore[arg-type]
    except WorkerEnded as end:
        return end


def is_forged(message: object) -> bool:
    """A result of an input that was never sent: the layer above drops it."""
    return isinstance(message, InputSucceeded) and message.input == 999


@pytest.mark.parametrize("name", CONTAINED)
async def test_contained(name: str, launcher: BwrapLauncher, tmp_path: Path) -> None:
    opener = worlds.opener_of(launcher, tmp_path)
    async with (
        suite.one_worker(opener) as (bystanders, bystander),
        suite.one_worker(opener, limits=LIMITS) as (
            zygote,
            worker,
        ),
    ):
        outcome = await result_of(worker, name)
        assert CONTAINED[name](outcome), outcome
        if isinstance(outcome, suite.Outcome):
            await worker.kill()
            assert (await suite.end_of(worker)).status == -signal.SIGKILL
        if zygote.alive:
            await suite.goes_on(zygote)
        assert (await suite.call(bystander, suite.inside_double, 21)).value == 42
        await suite.goes_on(bystanders)


def test_every_program_is_tried_and_guarded() -> None:
    programs = {path.stem: path.read_text() for path in PROGRAMS.glob("*.py")}
    assert programs.keys() == CONTAINED.keys()
    for source in programs.values():
        assert source.split('"""\n\n', 1)[1].startswith(GUARD)
