"""Functions that share workers, keep them, or yield; shipped as source like any user's module."""

import asyncio
import threading
import time
from collections.abc import Iterator

import potluck

app = potluck.App("sharing")
# Its workers are up as long as it is, and so it has no other functions.
keeping = potluck.App("keeping")

TOGETHER = 6
barrier = threading.Barrier(TOGETHER)


@app.function(max_containers=1)
@potluck.concurrent(max_inputs=TOGETHER)
def meet(number: int) -> int:
    """Returns only when as many as there may be are in one worker."""
    barrier.wait(timeout=100)
    time.sleep(1)
    return number


@app.function(max_containers=1)
@potluck.concurrent(max_inputs=3)
async def nap(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@keeping.function(min_containers=2, scaledown_window=2, cpu=0.5)
def kept(number: int) -> int:
    return number


@app.function(scaledown_window=2, cpu=0.5)
def plain(number: int) -> int:
    return number


@app.function(single_use_containers=True, cpu=0.5)
def count() -> int:
    count.__dict__["calls"] = count.__dict__.get("calls", 0) + 1
    return count.__dict__["calls"]


@app.function()
def countdown(start: int, pause_s: float) -> Iterator[int]:
    for number in range(start, 0, -1):
        time.sleep(pause_s)
        yield number


@app.function(cpu=0.5)
def square(number: int) -> int:
    time.sleep(0.2)
    return number * number


class Own:
    """No plain value: only code can rebuild it."""

    def __init__(self, number: int) -> None:
        self.number = number


@app.function()
def own(number: int) -> Own:
    return Own(number)
