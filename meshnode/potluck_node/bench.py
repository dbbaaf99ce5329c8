"""Measures one device of this machine: `python -m potluck_node.bench cpu|gpu` prints a `Score` as JSON, or null.

A process of its own, at the lowest priority: a driver that hangs is ended with it, and a GPU's memory is given back.
"""

from __future__ import annotations

import os
import sys
import time
import zlib
from collections.abc import Callable
from statistics import median

import msgspec
from blake3 import blake3

from potluck.wire.offer import Score

# Goes up with any change of what is measured: scores of different workloads are not alike.
WORKLOAD = 1
RUNS = 5
# One pass over the buffer takes some 50 ms; five runs of three are about a second, one to warm up included.
BUFFER_BYTES, PASSES = 1 << 20, 3
# Half precision: large enough to fill any GPU, 96 MiB for all three matrices. A run takes 0.01 to 1 s.
MATRIX, PRODUCTS = 4096, 20
COPY_BYTES, COPIES = 256 << 20, 20


def cpu() -> Score:
    """One core: KiB/s of a fixed text compressed (zlib, level 6) and hashed (BLAKE3). In time of the processor, so that
    other programs matter little."""
    text = blake3(b"potluck benchmark").digest(length=BUFFER_BYTES // 2).hex().encode()

    def work() -> None:
        for _ in range(PASSES):
            blake3(zlib.compress(text, 6)).digest()

    seconds = _median_s(work, time.process_time)
    return Score("", round(PASSES * len(text) / 1024 / seconds))


def gpu() -> Score | None:
    """The first GPU that torch sees: GFLOP/s of a product of matrices of halves, MiB/s of memory that is copied, each
    byte counted once. None without torch, or where torch sees none."""
    try:
        import torch  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    matrix = torch.rand(MATRIX, MATRIX, device="cuda", dtype=torch.float16)
    result = torch.empty_like(matrix)
    source = torch.empty(COPY_BYTES, device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)

    def repeated(work: Callable[[], object], times: int) -> float:
        def run() -> None:
            for _ in range(times):
                work()
            torch.cuda.synchronize()

        return _median_s(run, time.perf_counter)

    product_s = repeated(lambda: torch.matmul(matrix, matrix, out=result), PRODUCTS)
    copy_s = repeated(lambda: target.copy_(source), COPIES)
    return Score("", round(PRODUCTS * 2 * MATRIX**3 / product_s / 1e9), round(COPIES * COPY_BYTES / copy_s / (1 << 20)))


def _median_s(work: Callable[[], None], clock: Callable[[], float]) -> float:
    """Seconds of one run: the median of `RUNS`, after one that does not count."""
    work()
    times: list[float] = []
    for _ in range(RUNS):
        before = clock()
        work()
        times.append(clock() - before)
    return median(times)


if __name__ == "__main__":
    os.nice(19)
    score = gpu() if sys.argv[1:] == ["gpu"] else cpu()
    sys.stdout.write(msgspec.json.encode(score).decode())
