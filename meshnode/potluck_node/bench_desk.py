"""Has this machine's devices measured, once each or when asked, and keeps their scores. See
docs/decisions/benchmark.md."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio

from potluck.errors import Error, ExecutionError, RefusedError
from potluck.wire.bench import BenchDone, Kept, RunBench
from potluck.wire.offer import SCORES_MAX, Score
from potluck_node.bench import WORKLOAD
from potluck_node.devices.cpu import describe_cpu

if TYPE_CHECKING:
    from potluck_node.provider import Provider

log = logging.getLogger("potluck.bench")

# How long after its start, and how often, a node looks for devices that were not measured yet, seconds. Whoever starts
# a node mostly wants to use it at once.
LOOK_EVERY_S = 60.0
# To import torch from a slow disk takes tens of seconds, and to measure below two.
TIMEOUT_S = 120.0


class BenchDesk:
    """`provider` is None on a node that lends nothing; `changed` is called when there are new scores."""

    def __init__(self, path: Path, provider: Provider | None, changed: Callable[[], None]) -> None:
        self._path, self._provider, self._changed = path, provider, changed
        self._lock, self._cpu = trio.Lock(), describe_cpu()
        self._measured = _read(path)

    async def serve(self) -> None:
        """Measure what is new, while nothing runs here, until cancelled."""
        while True:
            await trio.sleep(LOOK_EVERY_S)
            new = [device for device in self._devices() if device not in self._measured]
            if new and self._is_unused():
                left_out = await self._measure(new)
                log.info("measured %s", "; ".join([*new, *left_out]))

    def scores(self) -> tuple[Score, ...]:
        """Of the devices that are here now, as far as they were measured."""
        found = (self._measured.get(device) for device in self._devices())
        return tuple(score for score in found if score)

    async def answer(self, question: RunBench) -> BenchDone:
        """Measure all devices now. Raises `RefusedError` while functions run here, `ExecutionError` when it failed."""
        if any(state != "idle" for _, _, _, state, _ in self._workers()):
            fix = "Ask again later, or end what runs: potluck pause --now, potluck bench, potluck resume"
            raise RefusedError("This machine is not measured now.", why="functions run on it", fix=fix)
        left_out = await self._measure(self._devices())
        return BenchDone(question.question, self.scores(), tuple(left_out))

    def _workers(self) -> list[tuple[str, str, str, str, int]]:
        return list(self._provider.core.workers()) if self._provider else []

    def _is_unused(self) -> bool:
        """Warm workers may hold the GPU that is to be measured; an owner who paused wants to be left alone."""
        return bool(self._provider and not self._provider.core.paused and not self._workers())

    def _devices(self) -> list[str]:
        """The processor, then each model of GPU."""
        gpus = self._provider.core.gpus.offers() if self._provider else ()
        return [self._cpu, *sorted({gpu.model for gpu in gpus})][:SCORES_MAX]

    async def _measure(self, devices: list[str]) -> list[str]:
        """Measure and keep these; returns those that were left out, and why."""
        left_out: list[str] = []
        async with self._lock:
            for device in devices:
                try:
                    score = await (self._gpu(device) if device != self._cpu else _run("cpu", {}))
                except Error as error:
                    left_out.append(f"{device}: {error.why or error.what}")
                    continue
                if score is None:
                    left_out.append(f"{device}: not measured, for want of torch beside the node")
                self._measured[device] = score
            self._keep()
        self._changed()
        return left_out

    async def _gpu(self, model: str) -> Score | None:
        """Held meanwhile, so that no function has it. Raises `Error`, also where no GPU of the model is free."""
        if self._provider is None or not _has_torch():
            return None
        with self._provider.lend((model,)) as binding:
            # What torch makes of AMD's numbers depends on the sandbox.
            visible = binding.env.get("CUDA_VISIBLE_DEVICES")
            score = await _run("gpu", {"CUDA_VISIBLE_DEVICES": visible}) if visible else None
        return msgspec.structs.replace(score, gpu_model=model) if score else None

    def _keep(self) -> None:
        """Written whole, or not at all."""
        draft = self._path.with_suffix(".new")
        try:
            draft.write_bytes(msgspec.json.encode(Kept(WORKLOAD, self._measured)))
            draft.replace(self._path)
        except OSError as error:
            log.warning("scores are not kept: %s", error)


def _has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def _read(path: Path) -> dict[str, Score | None]:
    """What was kept; nothing where that cannot be read, or another workload was measured: it is measured again."""
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=Kept)
    except (OSError, msgspec.DecodeError):
        return {}
    return kept.measured if kept.workload == WORKLOAD else {}


async def _run(kind: str, env: Mapping[str, str]) -> Score | None:
    """Raises `ExecutionError`."""
    command = [sys.executable, "-m", "potluck_node.bench", kind]
    with trio.move_on_after(TIMEOUT_S):
        try:
            done = await trio.run_process(command, capture_stdout=True, env={**os.environ, **env})
            return msgspec.json.decode(done.stdout, type=Score | None)
        except (OSError, subprocess.SubprocessError, msgspec.DecodeError) as error:
            raise ExecutionError("could not be measured; the node's log says more", why=str(error)) from None
    raise ExecutionError(f"was not measured within {TIMEOUT_S:.0f} s")
