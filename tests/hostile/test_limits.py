"""Each limit as the caller of a function meets it, in the words that docs/security.md has for it."""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import resource
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cloudpickle
import pytest
from tests.conformance import check_sandbox as suite
from tests.hostile.harness import LIMITS
from tests.hostile.test_contained import launcher
from tests.meshnode.sandbox import worlds

from potluck.wire.worker import InputRaised, InputRefused
from potluck_node.sandbox.bwrap import BwrapLauncher
from potluck_node.sandbox.interface import WorkerEnded

__all__ = ["launcher"]
# `inside_…` is sent into the sandbox by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"


def inside_eat() -> None:
    held = []
    while True:
        held.append(bytearray(b"x" * (1 << 20)))


def inside_fork() -> None:
    children: list[int] = []
    try:
        while (pid := os.fork()) != 0:
            children.append(pid)
        threading.Event().wait()
    finally:
        for pid in children:
            os.kill(pid, 9)
            os.waitpid(pid, 0)


def inside_start_threads() -> None:
    stop = threading.Event()
    try:
        while True:
            threading.Thread(target=stop.wait, daemon=True).start()
    finally:
        stop.set()


def inside_fill() -> None:
    with open("/tmp/large", "wb") as file:
        while True:
            file.write(bytes(1 << 20))


def inside_write_far() -> None:
    with open("/tmp/far", "wb") as file:
        file.truncate(resource.getrlimit(resource.RLIMIT_FSIZE)[1] + 1)


def inside_open() -> None:
    while True:
        os.open("/dev/null", os.O_RDONLY)


def inside_connect() -> None:
    with socket.socket() as client:
        client.settimeout(5)
        client.connect(("192.0.2.1", 80))


def inside_return_much() -> pickle.PickleBuffer:
    """Put beside the pickle, and refused before it is read: untouched memory costs nothing."""
    return pickle.PickleBuffer(mmap.mmap(-1, 2049 << 20))


def inside_lie() -> None:
    for descriptor in range(3, 50):
        with contextlib.suppress(OSError):
            os.write(descriptor, b"\xff" * 64)
    threading.Event().wait()


# Limit → (what breaks it, the words that its row in the document has).
BREACHES: dict[str, tuple[Callable[[], object], *tuple[str, ...]]] = {
    "memory": (inside_eat, "out of memory: limit"),
    "processes": (inside_fork, "[Errno 11] Resource temporarily unavailable"),
    "threads": (inside_start_threads, "can't start new thread"),
    "scratch": (inside_fill, "[Errno 28] No space left on device"),
    "file size": (inside_write_far, "[Errno 27] File too large"),
    "open files": (inside_open, "[Errno 24] Too many open files"),
    "network": (inside_connect, "[Errno 101] Network is unreachable", "[Errno 113] No route to host"),
    "protocol": (inside_lie, "broke the protocol"),
}


async def words_of(worker: suite.Worker) -> str:
    try:
        message = (await suite.outcome_of(worker)).message
    except WorkerEnded as end:
        return end.reason
    if isinstance(message, InputRefused):
        return message.failure.what
    assert isinstance(message, InputRaised), message
    return message.exception.message


@pytest.mark.parametrize("name", BREACHES)
async def test_the_caller_reads_why(name: str, launcher: BwrapLauncher, tmp_path: Path) -> None:
    breach, *words = BREACHES[name]
    async with suite.one_worker(
        worlds.opener_of(launcher, tmp_path), limits=replace(LIMITS, memory_mib=512, pids=40)
    ) as (
        zygote,
        worker,
    ):
        await suite.post(worker, breach)
        said = await words_of(worker)
        assert any(each in said for each in words), said
        if zygote.alive:
            await worker.kill()
            await suite.goes_on(zygote)


async def test_a_result_that_is_too_large_is_refused(launcher: BwrapLauncher, tmp_path: Path) -> None:
    limits = suite.Limits(memory_mib=1500)
    async with suite.one_worker(worlds.opener_of(launcher, tmp_path), limits=limits) as (_, worker):
        await suite.post(worker, inside_return_much)
        assert "MiB can be returned" in await words_of(worker)


@pytest.mark.parametrize("words", [each for _, *words in BREACHES.values() for each in words])
def test_the_words_are_documented(words: str) -> None:
    assert words in DOCUMENT.read_text()
